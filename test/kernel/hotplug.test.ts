import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_4K } from '../../src/abi/address.ts';
import { memoryBlockSize } from '../../src/kernel/memory-blocks.ts';
import type { HotplugPolicy } from '../../src/kernel/policy/kernel-policy.ts';
import { realHost } from './bring-up.ts';
import { refusalOf } from './scripted-host.ts';
import { TINY } from './tiny-machine.ts';

const NEW = { start: 16 * GIB, end: 17 * GIB };
const DIMM = { ...NEW, node: 1, kind: 'ram', state: 'present' } as const;

async function host(hotplug: HotplugPolicy, enable: 'boot' | 'first-user' = 'boot') {
  const made = realHost({ policy: { hotplug, enable } });
  await made.kernel.boot();
  return made;
}

describe('hot-added memory on a TDX host', () => {
  it('is refused when it goes online, with the range', async () => {
    const { machine, kernel } = await host('reject-non-tdx');
    const before = kernel.allocator.accounts();
    machine.hotAddMemory(DIMM);
    await expect(kernel.onlineMemory(NEW)).rejects.toMatchObject({
      errno: 'EPERM',
      reason: { code: 'not-tdx-memory', data: { range: NEW } },
    });
    expect(kernel.allocator.accounts()).toEqual(before);
    const block = kernel.memoryBlocks().find(({ start }) => start === NEW.start)!;
    expect(block).toMatchObject({ state: 'offline', tdxCapable: false, why: { code: 'outside-tdx-memory' } });
  });

  it('is refused already when added, with a log line, under reject-at-add', async () => {
    const { machine, kernel } = await host('reject-at-add');
    machine.hotAddMemory(DIMM);
    expect(kernel.log.entries.at(-1)).toMatchObject({ level: 'err', code: 'hot-add-refused' });
    expect(await refusalOf(kernel.onlineMemory(NEW))).toBe('EINVAL not-offline-memory');
  });

  it('comes online under allow, and is no TDX memory', async () => {
    const { machine, kernel } = await host('allow');
    machine.hotAddMemory(DIMM);
    expect(await refusalOf(kernel.onlineMemory({ start: NEW.start, end: NEW.start + 64 * MIB }))).toBe(
      'EINVAL memory-block-alignment',
    );
    await kernel.onlineMemory(NEW);
    const node = kernel.allocator.accounts().find(({ node }) => node === 1)!;
    expect(node.total).toBe((5 * GIB) / PAGE_4K);
    const block = kernel.memoryBlocks().find(({ start }) => start === NEW.start)!;
    expect(block).toMatchObject({ state: 'online', tdxCapable: false, tdxBytes: 0 });
    kernel.allocator.audit();
  });

  it('loses to TDX or wins over it under winner-takes-all, whoever was first', async () => {
    const first = await host('winner-takes-all');
    first.machine.hotAddMemory(DIMM);
    expect(first.kernel.hotplug.offline).toEqual([]);
    const second = await host('winner-takes-all', 'first-user');
    second.machine.hotAddMemory(DIMM);
    expect(await refusalOf(second.kernel.enableTdx())).toBe('EBUSY memory-hot-added');
    const third = await host('winner-takes-all', 'first-user');
    const range = { start: 6 * GIB, end: 6 * GIB + 256 * MIB };
    await third.kernel.offlineMemory(range);
    await third.kernel.onlineMemory(range);
    expect(await refusalOf(third.kernel.enableTdx())).toBe('not refused');
  });

  it('brought online before TDX becomes TDX memory, which the module refuses outside the CMRs', async () => {
    const { machine, kernel } = await host('reject-non-tdx', 'first-user');
    machine.hotAddMemory(DIMM);
    await kernel.onlineMemory(NEW);
    await expect(kernel.enableTdx()).rejects.toMatchObject({
      errno: 'EIO',
      reason: { data: { stage: 'config', statusName: expect.stringMatching(/^TDX_TDMR_OUTSIDE_CMRS/) } },
    });
  });
});

describe('memory that was there', () => {
  it('goes offline and online again', async () => {
    const { kernel } = await host('reject-non-tdx');
    const range = { start: 6 * GIB, end: 6 * GIB + 256 * MIB };
    const before = kernel.allocator.accounts();
    await kernel.offlineMemory(range);
    expect(
      kernel
        .memoryBlocks()
        .filter(({ state }) => state === 'offline')
        .map(({ start }) => start),
    ).toEqual([range.start, range.start + 128 * MIB]);
    await kernel.onlineMemory(range);
    expect(kernel.allocator.accounts()).toEqual(before);
    expect(kernel.memoryBlocks().every(({ state }) => state === 'online')).toBe(true);
  });

  it('stays where pages in it cannot move, such as a PAMT', async () => {
    const { kernel } = await host('reject-non-tdx');
    const block = Math.floor(kernel.tdmrs[2]!.pamt.base / (128 * MIB)) * 128 * MIB;
    expect(await refusalOf(kernel.offlineMemory({ start: block, end: block + 128 * MIB }))).toBe(
      'EBUSY memory-in-use',
    );
    expect(await refusalOf(kernel.offlineMemory({ start: 6 * GIB, end: 6 * GIB + MIB }))).toBe(
      'EINVAL memory-block-alignment',
    );
  });

  it('taken away is noticed, in use or not', async () => {
    const { machine, kernel } = await host('reject-non-tdx');
    machine.hotAddMemory(DIMM);
    machine.hotRemoveMemory(NEW);
    expect(kernel.log.entries.at(-1)).toMatchObject({ level: 'info', code: 'hot-remove' });
    machine.hotRemoveMemory({ start: 6 * GIB, end: 7 * GIB });
    expect(kernel.log.entries.at(-1)).toMatchObject({ level: 'warn', code: 'hot-remove' });
    machine.hotRemoveMemory({ start: 4 * GIB, end: 5 * GIB });
    expect(kernel.log.entries.at(-1)).toMatchObject({ level: 'err', code: 'hot-remove-in-use' });
    kernel.allocator.audit();
  });
});

describe('memory blocks', () => {
  it('are 128 MiB, and 2 GiB from 64 GiB of memory on', () => {
    expect([12 * GIB, 64 * GIB - 1, 64 * GIB].map(memoryBlockSize)).toEqual([128 * MIB, 128 * MIB, 2 * GIB]);
  });

  it('add up to all memory and are all TDX-capable after a bring-up', async () => {
    const { kernel } = await host('reject-non-tdx');
    const blocks = kernel.memoryBlocks();
    const total = kernel.allocator.accounts().reduce((sum, account) => sum + account.total, 0);
    const low = TINY.e820[0]!.end;
    expect(blocks.reduce((sum, { presentBytes }) => sum + presentBytes, 0)).toBe(total * PAGE_4K + low);
    expect(blocks.every(({ tdxCapable, why }) => tdxCapable && why === null)).toBe(true);
    expect(blocks.map(({ index }) => index)).toEqual([
      ...new Set(blocks.map(({ start }) => start / (128 * MIB))),
    ]);
  });

  it('count System RAM only, whether or not legacy persistent memory beside it is TDX memory', async () => {
    const half = { start: 11 * GIB + 64 * MIB, end: 12 * GIB };
    const e820 = TINY.e820.flatMap((entry) =>
      entry.end === half.end
        ? [
            { ...entry, end: half.start },
            { ...half, type: 'legacy-pmem' as const },
          ]
        : [entry],
    );
    for (const tdxMemory of ['boot-ram', 'boot-ram-and-pmem'] as const) {
      const { kernel } = realHost({ policy: { tdxMemory } }, { e820 });
      await kernel.boot();
      expect(kernel.state).toBe('initialized');
      expect(kernel.memoryBlocks().at(-1)).toMatchObject({
        start: 11 * GIB,
        presentBytes: 64 * MIB,
        tdxBytes: 64 * MIB,
        tdxCapable: true,
      });
    }
  });

  it('say why they are not while TDX is off', async () => {
    const waiting = await host('reject-non-tdx', 'first-user');
    expect(waiting.kernel.memoryBlocks()[0]).toMatchObject({
      tdxCapable: false,
      why: { code: 'tdx-not-initialized' },
    });
    const failed = realHost({}, { keyIds: null });
    await failed.kernel.boot();
    expect(failed.kernel.memoryBlocks()[0]).toMatchObject({
      tdxCapable: false,
      why: { code: 'tdx-not-enabled-by-bios' },
    });
  });
});
