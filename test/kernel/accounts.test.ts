/** Memory that comes, goes, fails and is lent, in any order: the accounts balance, and every refusal has its reason. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_4K } from '../../src/abi/address.ts';
import { KernelError } from '../../src/abi/errno.ts';
import type { HostKernel } from '../../src/kernel/host-kernel.ts';
import { KNOBS } from '../../src/kernel/policy/knobs.ts';
import type { RealHost } from './bring-up.ts';
import { bootedHost } from './policy/mixed-host.ts';
import { TINY } from './tiny-machine.ts';

const CXL = { start: 32 * GIB, end: 33 * GIB, node: 2, kind: 'cxl', state: 'present' } as const;
const BLOCK = 128 * MIB;
/** Where events happen: memory of boot, a slot for a DIMM, CXL memory. */
const PLACES = [4 * GIB, 9 * GIB, 16 * GIB, CXL.start];

const place = fc.tuple(fc.constantFrom(...PLACES), fc.nat(2)).map(([base, i]) => base + i * BLOCK);
const event = fc.oneof(
  fc.record({
    do: fc.constantFrom('online', 'offline', 'kmemAdd', 'kmemRemove', 'plug', 'unplug'),
    at: place,
  }),
  fc.record({ do: fc.constantFrom('poison'), at: place, page: fc.nat(BLOCK / PAGE_4K - 1) }),
  fc.record({
    do: fc.constantFrom('alloc', 'td'),
    order: fc.nat(10),
    node: fc.nat(3),
    movable: fc.boolean(),
  }),
  fc.record({ do: fc.constantFrom('free'), which: fc.nat(1000) }),
  fc.record({ do: fc.constantFrom('inflate', 'deflate'), pages: fc.nat(40_000) }),
);

class World {
  readonly host: RealHost;
  readonly held = new Map<number, number>();
  readonly reasons: string[] = [];

  constructor(host: RealHost) {
    this.host = host;
    host.kernel.allocator.onMigrate = (from, to) => {
      this.held.set(to, this.held.get(from)!);
      this.held.delete(from);
    };
  }

  async play(e: typeof event extends fc.Arbitrary<infer T> ? T : never): Promise<void> {
    const { kernel, machine } = this.host;
    const { allocator } = kernel;
    const range = 'at' in e ? { start: e.at, end: e.at + BLOCK } : { start: 0, end: 0 };
    try {
      if ('page' in e) await kernel.memoryFailure(e.at + e.page * PAGE_4K);
      else if (e.do === 'online')
        await kernel.onlineMemory(range, e.at % (2 * BLOCK) === 0 ? 'movable' : 'auto');
      else if (e.do === 'offline') await kernel.offlineMemory(range);
      else if (e.do === 'kmemAdd') await kernel.kmemAdd(range);
      else if (e.do === 'kmemRemove') await kernel.kmemRemove(range);
      else if (
        e.do === 'plug' &&
        !machine.presentMemory.some((p) => p.start < range.end && range.start < p.end)
      )
        machine.hotAddMemory({ ...range, node: 1, kind: 'ram', state: 'present' });
      else if (
        e.do === 'unplug' &&
        // Without its PAMT, which is at 4 GiB, the module ends in machine checks.
        e.at > 8 * GIB &&
        machine.presentMemory.some((p) => p.start <= range.start && range.end <= p.end)
      )
        machine.hotRemoveMemory(range);
      else if ('order' in e) {
        const pfn =
          e.do === 'td'
            ? kernel.tdMemory.alloc(e.order, { purpose: 'test', node: e.node })
            : allocator.allocPages(e.order, { ...e, nonTdxOk: e.movable, purpose: 'test' });
        if (pfn !== null) this.held.set(pfn, e.order);
      } else if ('which' in e && this.held.size > 0) {
        const [pfn, order] = [...this.held][e.which % this.held.size]!;
        this.held.delete(pfn);
        allocator.freePages(pfn, 2 ** order);
      } else if ('pages' in e) {
        if (e.do === 'inflate') kernel.balloon.inflate(e.pages);
        else kernel.balloon.deflate(e.pages);
      }
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      expect(error.reason.text).toMatch(/\w{3}/);
      this.reasons.push(error.reason.code);
    }
    this.check(kernel);
  }

  check(kernel: HostKernel): void {
    const { allocator } = kernel;
    allocator.audit();
    expect(allocator.accounts().reduce((sum, { ballooned }) => sum + ballooned, 0)).toBe(
      kernel.balloon.pages,
    );
    const online = kernel.memoryBlocks().filter(({ state }) => state === 'online');
    expect(online.every(({ zones }) => zones.length > 0)).toBe(true);
    for (const { tdxCapable, why } of kernel.memoryBlocks()) expect(why === null).toBe(tdxCapable);
  }

  /** Gives everything back: what is not free then is the kernel's, or failed. */
  end(used: number): void {
    const { kernel } = this.host;
    for (const [pfn, order] of this.held) kernel.allocator.freePages(pfn, 2 ** order);
    kernel.balloon.deflate(Infinity);
    this.check(kernel);
    expect(kernel.allocator.accounts().reduce((sum, account) => sum + account.used, 0)).toBe(used);
  }
}

describe('memory in any order of events', () => {
  it('balances under every policy of hot-plug and of allocation', async () => {
    const reasons = new Set<string>();
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...KNOBS.hotplug.values.map(({ value }) => value)),
        fc.constantFrom(...KNOBS.tdAllocation.values.map(({ value }) => value)),
        fc.array(event, { minLength: 30, maxLength: 60 }),
        async (hotplug, tdAllocation, events) => {
          const host = await bootedHost({ hotplug, tdAllocation }, { memory: [...TINY.memory, CXL] });
          const used = host.kernel.allocator.accounts().reduce((sum, account) => sum + account.used, 0);
          const world = new World(host);
          for (const e of events) await world.play(e);
          world.end(used);
          for (const reason of world.reasons) reasons.add(reason);
        },
      ),
      { numRuns: 25 },
    );
    expect([...reasons]).toEqual(
      expect.arrayContaining(['not-tdx-memory', 'not-online-memory', 'not-offline-memory', 'memory-in-use']),
    );
  });
});
