/** The knobs hotplug, tdxMemory and cmrRemoval: for each value what was said for it, and against it, happening. */
import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_4K } from '../../../src/abi/address.ts';
import { formatStatus } from '../../../src/abi/status.ts';
import type { HotplugPolicy } from '../../../src/kernel/policy/kernel-policy.ts';
import { refusalOf } from '../scripted-host.ts';
import { TINY } from '../tiny-machine.ts';
import { bootedHost, createTd, DIMM, mixedHost, NEW, useUpTdxMemory } from './mixed-host.ts';

/** Memory of node 0 that TDX knows. */
const KNOWN = { start: 6 * GIB, end: 6 * GIB + 256 * MIB };
/** CXL memory that the firmware tells of and dax/kmem may bind. */
const CXL = { start: 32 * GIB, end: 36 * GIB, node: 2, kind: 'cxl', state: 'present' } as const;
const WITH_CXL = { memory: [...TINY.memory, CXL] };
/** A platform to come, whose CMRs hold CXL memory and an NVDIMM. */
const FUTURE = {
  memory: [...WITH_CXL.memory, { start: 40 * GIB, end: 44 * GIB, node: 3, kind: 'nvdimm', state: 'present' }],
  cmrs: [...TINY.cmrs, { start: CXL.start, end: CXL.end }, { start: 40 * GIB, end: 44 * GIB }],
  srat: [
    ...TINY.srat,
    { start: CXL.start, end: CXL.end, proximityDomain: 2, node: 2, hotplug: true, nonVolatile: false },
    { start: 40 * GIB, end: 44 * GIB, proximityDomain: 3, node: 3, hotplug: true, nonVolatile: true },
  ],
} as const;

describe('reject-non-tdx', () => {
  it('lets memory that TDX knows go and come back, and the allocator stays all TDX memory', async () => {
    const { kernel } = await bootedHost({ hotplug: 'reject-non-tdx' });
    await kernel.offlineMemory(KNOWN);
    await kernel.onlineMemory(KNOWN);
    expect(kernel.tdxCapability().zones.every(({ tdxCapable }) => tdxCapable)).toBe(true);
  });

  it('refuses late, and block by block', async () => {
    const { kernel } = await bootedHost({ hotplug: 'reject-non-tdx' }, WITH_CXL);
    await kernel.kmemAdd(CXL);
    const refusals: string[] = [];
    const { blockSize } = kernel.hotplug;
    for (let start: number = CXL.start; start < CXL.end; start += blockSize)
      refusals.push(await refusalOf(kernel.onlineMemory({ start, end: start + blockSize })));
    expect(refusals).toEqual(new Array(32).fill('EPERM not-tdx-memory'));
  });
});

describe('refuse-all', () => {
  it('changes nothing about memory while TDX is enabled', async () => {
    const { kernel, machine } = await bootedHost({ hotplug: 'refuse-all' }, WITH_CXL);
    const before = kernel.allocator.accounts();
    machine.hotAddMemory(DIMM);
    expect(kernel.hotplug.refused).toMatchObject([{ range: DIMM, why: { code: 'tdx-is-on' } }]);
    expect(await refusalOf(kernel.kmemAdd(CXL))).toBe('EPERM tdx-is-on');
    expect(kernel.allocator.accounts()).toEqual(before);
  });

  it('refuses even memory that is TDX memory', async () => {
    const { kernel } = await bootedHost({ hotplug: 'refuse-all', tdxMemory: 'cmr' }, FUTURE);
    expect(await refusalOf(kernel.kmemAdd(CXL))).toBe('EPERM tdx-is-on');
    kernel.setPolicy('hotplug', 'reject-at-add');
    expect(await refusalOf(kernel.kmemAdd(CXL))).toBe('not refused');
  });
});

describe('reject-at-add', () => {
  it('refuses once, with the whole range', async () => {
    const { kernel, machine } = await bootedHost({ hotplug: 'reject-at-add' });
    machine.hotAddMemory(DIMM);
    expect(kernel.log.entries.filter(({ code }) => code === 'hot-add-refused')).toHaveLength(1);
    expect(kernel.hotplug.refused).toMatchObject([{ why: { code: 'not-tdx-memory', data: { range: NEW } } }]);
    const block = kernel.memoryBlocks().find(({ start }) => start === NEW.start);
    expect(block).toMatchObject({ state: 'present', tdxCapable: false, why: { code: 'not-tdx-memory' } });
  });

  it('refuses memory that would have stayed offline, which reject-non-tdx does not', async () => {
    for (const [hotplug, offline] of [['reject-at-add', 0] as const, ['reject-non-tdx', 1] as const]) {
      const { kernel, machine } = await bootedHost({ hotplug });
      machine.hotAddMemory(DIMM);
      expect(kernel.hotplug.offline).toHaveLength(offline);
    }
  });
});

describe('winner-takes-all', () => {
  it('keeps what was asked for first, whichever it was', async () => {
    const first = await bootedHost({ hotplug: 'winner-takes-all' });
    first.machine.hotAddMemory(DIMM);
    expect([first.kernel.state, first.kernel.hotplug.refused.length]).toEqual(['initialized', 1]);
  });

  it('leaves a host that once grew without TDs', async () => {
    const { kernel, machine } = await bootedHost({ hotplug: 'winner-takes-all', enable: 'first-user' });
    machine.hotAddMemory(DIMM);
    machine.hotRemoveMemory(NEW);
    expect(await refusalOf(kernel.getTdx())).toBe('EBUSY memory-hot-added');
  });
});

describe('allow', () => {
  it('uses all memory, and says of each block whether TDs can', async () => {
    const { kernel } = await mixedHost({ hotplug: 'allow' });
    expect(kernel.allocator.nodeOf(NEW.start / PAGE_4K)).toBe(1);
    const blocks = kernel.memoryBlocks().filter(({ tdxCapable }) => !tdxCapable);
    expect(new Set(blocks.map(({ why, state }) => `${state} ${why!.code}`))).toEqual(
      new Set(['online outside-tdx-memory']),
    );
  });

  it('lets a TD meet a page that the module refuses', async () => {
    const host = await mixedHost({ hotplug: 'allow' });
    useUpTdxMemory(host.kernel);
    const pfn = host.kernel.tdMemory.alloc(0, { purpose: 'test' });
    expect(formatStatus(createTd(host, pfn))).toMatch(/^TDX_OPERAND_ADDR_RANGE_ERROR/);
  });
});

describe('separate-zone', () => {
  it('gives the memory to those who say that they can use it, and to no TD', async () => {
    const { kernel } = await mixedHost({ hotplug: 'separate-zone' });
    const pfn = kernel.allocator.allocPages(0, { node: 1, nonTdxOk: true, purpose: 'user' })!;
    expect(pfn * PAGE_4K).toBeGreaterThanOrEqual(NEW.start);
    for (let i = 0; i < 100; i++)
      expect(kernel.tdMemory.isUsable(kernel.tdMemory.alloc(0, { purpose: 't', node: 1 }))).toBe(true);
    expect(kernel.tdxCapability().zones.filter(({ tdxCapable }) => !tdxCapable)).toMatchObject([
      { node: 1, zone: 'NonTdx', tdxBytes: 0, why: { code: 'no-tdx-memory' } },
    ]);
    expect(kernel.tdAdvice()).toMatchObject({ safe: true, numactl: '' });
  });

  it('leaves the kernel without memory while the zone is free', async () => {
    const { kernel } = await mixedHost({ hotplug: 'separate-zone' });
    useUpTdxMemory(kernel);
    expect(kernel.allocator.allocPages(0, { purpose: 'kernel' })).toBeNull();
    const zone = kernel.allocator.zones().find(({ name }) => name === 'NonTdx')!;
    expect(zone.freePages).toBe(GIB / PAGE_4K);
  });

  it('puts memory that TDX knows where it was', async () => {
    const { kernel } = await bootedHost({ hotplug: 'separate-zone' });
    const before = kernel.allocator.accounts();
    await kernel.offlineMemory(KNOWN);
    await kernel.onlineMemory(KNOWN);
    expect(kernel.allocator.accounts()).toEqual(before);
  });
});

describe('separate-node', () => {
  it('keeps TDs on TDX memory by a memory policy alone, which is the advice', async () => {
    const { kernel } = await mixedHost({ hotplug: 'separate-node' });
    expect(kernel.allocator.nodeOf(NEW.start / PAGE_4K)).toBe(2);
    const { safe, policy, numactl, nodes } = kernel.tdAdvice();
    expect([safe, numactl, nodes]).toEqual([true, 'numactl --membind=0,1', [0, 1]]);
    const request = { purpose: 'test', policy, node: 2 };
    useUpTdxMemory(kernel, [1]);
    for (let i = 0; i < 100; i++) {
      expect(kernel.tdMemory.isUsable(kernel.tdMemory.alloc(0, request))).toBe(true);
    }
    useUpTdxMemory(kernel, [0]);
    expect(await refusalOf(Promise.resolve().then(() => void kernel.tdMemory.alloc(0, request)))).toBe(
      'ENOMEM no-page',
    );
  });

  it('falls back to that node without one, and the TD dies of it', async () => {
    const host = await mixedHost({ hotplug: 'separate-node' });
    useUpTdxMemory(host.kernel);
    const pfn = host.kernel.tdMemory.alloc(0, { purpose: 'test', node: 0 });
    expect(host.kernel.allocator.nodeOf(pfn)).toBe(2);
    expect(formatStatus(createTd(host, pfn))).toMatch(/^TDX_OPERAND_ADDR_RANGE_ERROR/);
  });
});

describe.each<HotplugPolicy>([
  'refuse-all',
  'reject-at-add',
  'winner-takes-all',
  'reject-non-tdx',
  'separate-zone',
])('before TDX is enabled %s', (hotplug) => {
  it('does not stop memory', async () => {
    const { kernel, machine } = await bootedHost({ hotplug, enable: 'first-user' });
    machine.hotAddMemory(DIMM);
    expect(await refusalOf(kernel.onlineMemory(NEW))).toBe('not refused');
    expect(kernel.allocator.nodeOf(NEW.start / PAGE_4K)).toBe(1);
    kernel.allocator.audit();
  });
});

describe('tdxMemory', () => {
  it('boot-ram: any page of the allocator can go to a TD, and what comes later never can, even in a CMR', async () => {
    const { kernel } = await bootedHost({ tdxMemory: 'boot-ram' }, FUTURE);
    expect(kernel.tdAdvice()).toMatchObject({ safe: true, numactl: '', why: { code: 'all-tdx-memory' } });
    await kernel.kmemAdd(CXL);
    expect(await refusalOf(kernel.onlineMemory(CXL))).toBe('EPERM not-tdx-memory');
  });

  it('cmr: CXL memory and an NVDIMM in a CMR are TDX memory as soon as they are online', async () => {
    const { kernel } = await bootedHost({ tdxMemory: 'cmr' }, FUTURE);
    for (const { start, end, node } of FUTURE.memory.slice(-2)) {
      await kernel.kmemAdd({ start, end });
      await kernel.onlineMemory({ start, end });
      const pfn = kernel.tdMemory.alloc(0, { purpose: 'test', node });
      expect([pfn * PAGE_4K >= start, kernel.tdMemory.isUsable(pfn)]).toEqual([true, true]);
      expect(kernel.tdxCapability().nodes.find((one) => one.node === node)).toMatchObject({
        tdxCapable: true,
      });
    }
    expect(kernel.hotplug.resources().filter(({ name }) => name === 'System RAM (kmem)')).toHaveLength(2);
  });

  it('cmr: pays PAMT for memory that may never be there', async () => {
    const paid = async (tdxMemory: 'cmr' | 'boot-ram'): Promise<number> =>
      (await bootedHost({ tdxMemory }, FUTURE)).kernel.enabled!.pamtKb;
    expect(await paid('cmr')).toBeGreaterThan((await paid('boot-ram')) * 1.7);
  });

  const PMEM = {
    memory: [
      ...TINY.memory,
      { start: 12 * GIB, end: 14 * GIB, node: 1, kind: 'legacy-pmem', state: 'present' },
    ],
    e820: [...TINY.e820, { start: 12 * GIB, end: 14 * GIB, type: 'legacy-pmem' }],
  } as const;

  it('boot-ram-and-pmem: legacy PMEM that dax/kmem onlines is TDX memory already', async () => {
    const cmrs = [...TINY.cmrs.slice(0, 2), { start: 4 * GIB, end: 14 * GIB }];
    const range = { start: 12 * GIB, end: 14 * GIB };
    for (const [tdxMemory, outcome] of [
      ['boot-ram-and-pmem', 'not refused'],
      ['boot-ram', 'EPERM not-tdx-memory'],
    ] as const) {
      const { kernel } = await bootedHost({ tdxMemory }, { ...PMEM, cmrs });
      await kernel.kmemAdd(range);
      expect(await refusalOf(kernel.onlineMemory(range))).toBe(outcome);
    }
  });

  it('boot-ram-and-pmem: PMEM outside every CMR stops TDX', async () => {
    const { kernel } = await bootedHost({ tdxMemory: 'boot-ram-and-pmem' }, PMEM);
    expect(kernel.stages.find(({ state }) => state === 'failed')?.name).toBe('config');
  });

  it('nodes: PAMT is paid for the chosen node only, and a page of another node is refused', async () => {
    const host = await bootedHost({ tdxMemory: 'nodes', tdxNodes: [1] });
    const { kernel } = host;
    expect(kernel.enabled!.pamtKb).toBeLessThan((await bootedHost()).kernel.enabled!.pamtKb / 2);
    expect(kernel.tdAdvice()).toMatchObject({
      safe: true,
      numactl: 'numactl --membind=1',
      controlPolicy: 'bind:1',
    });
    const pfn = kernel.tdMemory.alloc(0, { purpose: 'test', node: 0 });
    expect(formatStatus(createTd(host, pfn))).toMatch(/^TDX_OPERAND_ADDR_RANGE_ERROR/);
  });
});

describe('memory of a CMR that the firmware takes away or plugs in', () => {
  const again = { ...KNOWN, node: 0, kind: 'ram', state: 'present' } as const;

  it('error: is said loudly, and the kernel goes on', async () => {
    const { kernel, machine } = await bootedHost({ cmrRemoval: 'error' });
    machine.hotRemoveMemory(KNOWN);
    machine.hotAddMemory(again);
    const codes = kernel.log.entries.filter(({ level }) => level === 'err').map(({ code }) => code);
    expect(codes).toEqual(['cmr-memory-removed', 'cmr-memory-added']);
    expect(kernel.stopped).toBeNull();
    expect(await refusalOf(kernel.onlineMemory(KNOWN))).toBe('not refused');
  });

  it('error: pages that were in use are still handed to the module, far from what went wrong', async () => {
    const { kernel, machine } = await bootedHost({ cmrRemoval: 'error' });
    const pfn = kernel.tdMemory.alloc(0, { purpose: 'test', node: 0 });
    const block = Math.floor((pfn * PAGE_4K) / (128 * MIB)) * 128 * MIB;
    machine.hotRemoveMemory({ start: block, end: block + 128 * MIB });
    expect(kernel.log.entries.at(-1)!.code).toBe('hot-remove-in-use');
    expect([machine.isPresent(pfn * PAGE_4K), kernel.tdMemory.isUsable(pfn)]).toEqual([false, true]);
  });

  it('bug: stops the kernel, even where no page of it was in use', async () => {
    const { kernel, machine } = await bootedHost({ cmrRemoval: 'bug' });
    machine.hotRemoveMemory(KNOWN);
    expect(kernel.stopped).toMatchObject({ code: 'cmr-memory-removed' });
    expect(await refusalOf(kernel.offlineMemory({ start: 7 * GIB, end: 7 * GIB + 128 * MIB }))).toBe(
      'EIO kernel-stopped',
    );
  });

  it('cannot be told before the CMRs are known', async () => {
    const { kernel, machine } = await bootedHost({ cmrRemoval: 'bug', enable: 'first-user' });
    machine.hotRemoveMemory(KNOWN);
    expect(kernel.stopped).toBeNull();
    expect(kernel.log.entries.some(({ code }) => code === 'cmr-memory-removed')).toBe(false);
    await kernel.enableTdx();
    machine.hotAddMemory(again);
    expect(kernel.stopped).toMatchObject({ code: 'cmr-memory-added' });
  });
});
