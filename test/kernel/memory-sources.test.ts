import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_4K } from '../../src/abi/address.ts';
import { STATUS } from '../../src/abi/status-codes.ts';
import { MSR } from '../../src/machine/platform.ts';
import { moduleImage } from '../../src/module/module-image.ts';
import { findRelease } from '../../src/module/releases.ts';
import { SeamLoader } from '../../src/module/seamldr.ts';
import { realHost } from './bring-up.ts';
import { bootedHost, createTd, useUpTdxMemory } from './policy/mixed-host.ts';
import { refusalOf } from './scripted-host.ts';

const BLOCK = { start: 6 * GIB, end: 6 * GIB + 128 * MIB };
const FIRST = BLOCK.start / PAGE_4K;

describe('memory that fails', () => {
  it('is never given to anybody again: free at once, used once it is freed', async () => {
    const { kernel } = await bootedHost();
    expect(await kernel.memoryFailure(BLOCK.start + 5)).toEqual({
      pfn: FIRST,
      isPrivate: false,
      owner: 'nobody',
    });
    expect((await kernel.memoryFailure(BLOCK.start)).owner).toBe('known');
    const pfn = kernel.allocator.allocPages(2, { purpose: 'test' })!;
    expect((await kernel.memoryFailure((pfn + 1) * PAGE_4K)).owner).toBe('kernel');
    const poisoned = (): number => kernel.allocator.accounts().reduce((sum, node) => sum + node.poisoned, 0);
    expect(poisoned()).toBe(1);
    kernel.allocator.freePages(pfn, 4);
    expect([poisoned(), kernel.allocator.isFree(pfn), kernel.allocator.isFree(pfn + 1)]).toEqual([
      2,
      true,
      false,
    ]);
    kernel.allocator.audit();
    expect((await kernel.memoryFailure(40 * GIB)).owner).toBe('absent');
  });

  it('goes offline with its block, which does not come back before the DIMM is replaced', async () => {
    const { kernel, machine } = await bootedHost();
    await kernel.memoryFailure(BLOCK.start);
    await kernel.offlineMemory(BLOCK);
    expect(await refusalOf(kernel.onlineMemory(BLOCK))).toBe('EHWPOISON memory-poisoned');
    machine.hotRemoveMemory(BLOCK);
    machine.hotAddMemory({ ...BLOCK, node: 0, kind: 'ram', state: 'present' });
    expect(await refusalOf(kernel.onlineMemory(BLOCK))).toBe('not refused');
    kernel.allocator.audit();
  });

  it('is private where the module has it, which the log says may be a kernel bug', async () => {
    const host = await bootedHost();
    const { kernel } = host;
    const pfn = kernel.tdMemory.alloc(0, { purpose: 'test' });
    expect(createTd(host, pfn)).toBe(STATUS.TDX_SUCCESS);
    expect(await kernel.memoryFailure(pfn * PAGE_4K)).toMatchObject({ isPrivate: true, owner: 'kernel' });
    expect(kernel.log.entries.at(-1)!.text).toMatch(/TDX private memory error. Possible kernel bug.$/);
    expect(await kernel.memoryFailure(kernel.tdmrs[0]!.pamt.base)).toMatchObject({ isPrivate: true });
    expect(await kernel.memoryFailure(BLOCK.start)).toMatchObject({ isPrivate: false });
  });
});

describe('a balloon', () => {
  it('takes memory out of use and gives it back', async () => {
    const { kernel } = await bootedHost();
    const before = kernel.allocator.accounts();
    expect(kernel.balloon.inflate(5000, 1)).toBe(5000);
    const node1 = kernel.allocator.accounts()[1]!;
    expect([node1.ballooned, node1.used]).toEqual([5000, before[1]!.used]);
    expect(await refusalOf(kernel.offlineMemory({ start: 8 * GIB, end: 8 * GIB + 128 * MIB }))).toBe(
      'EBUSY memory-in-use',
    );
    expect(kernel.balloon.deflate(1)).toBeGreaterThanOrEqual(1);
    kernel.balloon.deflate(Infinity);
    expect(kernel.allocator.accounts()).toEqual(before);
  });

  it('takes no more than there is', async () => {
    const { kernel } = await bootedHost();
    const { free } = kernel.allocator.accounts()[1]!;
    expect(kernel.balloon.inflate(free + 10, 1)).toBe(free);
    expect(kernel.balloon.pages).toBe(free);
  });
});

describe('the zone Movable', () => {
  it('has what is onlined as movable, for movable pages only, so that it can go again', async () => {
    const { kernel } = await bootedHost();
    await kernel.offlineMemory(BLOCK);
    await kernel.onlineMemory(BLOCK, 'movable');
    const zone = kernel.allocator.zones().find(({ name }) => name === 'Movable')!;
    expect(zone).toMatchObject({ node: 0, presentPages: 2 ** 15, freePages: 2 ** 15 });
    expect(kernel.memoryBlocks().find(({ start }) => start === BLOCK.start)!.zones).toEqual(['Movable']);
    const pfn = kernel.allocator.allocPages(0, { movable: true, purpose: 'user' })!;
    expect(pfn).toBe(FIRST);
    useUpTdxMemory(kernel, [1]);
    expect(kernel.tdMemory.alloc(0, { purpose: 'td', node: 1 })).not.toBe(FIRST + 1);
    expect(await refusalOf(kernel.offlineMemory(BLOCK))).toBe('not refused');
    kernel.allocator.audit();
  });
});

describe('nodes', () => {
  it('are fallen back to by distance, the next number first where it is equal', async () => {
    const { kernel } = await bootedHost();
    const order = (node: number): readonly number[] => [
      ...new Set(kernel.allocator.fallbackZones(node).map((zone) => zone.node)),
    ];
    expect([order(0), order(1)]).toEqual([
      [0, 1],
      [1, 0],
    ]);
  });
});

describe('a module update', () => {
  /** VMX_BASIC bit 60. */
  const SEAMRET_KEEPS_VMCS = 1n << 60n;
  const image = moduleImage(findRelease('1.5.25')!);

  async function updatable() {
    const host = realHost();
    const { msrs } = host.machine;
    msrs.set(MSR.VMX_BASIC, msrs.get(MSR.VMX_BASIC)! | SEAMRET_KEEPS_VMCS);
    await host.kernel.boot();
    host.machine.seam.loader = new SeamLoader(host.machine, '1.5.1', 3);
    return host;
  }

  it('leaves TDs as they are', async () => {
    const host = await updatable();
    const { kernel } = host;
    const tdr = kernel.tdMemory.alloc(0, { purpose: 'test' });
    expect(createTd(host, tdr)).toBe(STATUS.TDX_SUCCESS);
    const before = kernel.allocator.accounts();
    await kernel.updateModule(image);
    expect(kernel.state).toBe('initialized');
    expect(kernel.allocator.accounts()).toEqual(before);
    expect(await kernel.memoryFailure(tdr * PAGE_4K)).toMatchObject({ isPrivate: true });
  });

  it('is refused with everything as it was: no module, a CPU offline, a file that is no image', async () => {
    const off = await bootedHost({ enable: 'first-user' });
    expect(await refusalOf(off.kernel.updateModule(image))).toBe('ENODEV tdx-not-initialized');
    const { kernel } = await updatable();
    expect(await refusalOf(kernel.updateModule({ ...image, pages: [] }))).toBe('EINVAL module-image-size');
    await kernel.cpuOffline(3);
    expect(await refusalOf(kernel.updateModule(image))).toBe('EBUSY cpu-offline');
    expect(kernel.state).toBe('initialized');
  });

  it('that fails half-way leaves no TDX', async () => {
    const { kernel, machine } = await updatable();
    machine.seam.loader = null;
    expect(await refusalOf(kernel.updateModule(image))).toBe('EIO module-update-failed');
    expect(kernel.state).toBe('disabled');
    kernel.allocator.audit();
  });
});
