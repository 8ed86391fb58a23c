import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_4K, TIB } from '../../src/abi/address.ts';
import { MAX_ORDER, PageAllocator } from '../../src/kernel/allocator.ts';
import { fragment } from '../../src/kernel/fragment.ts';
import type { MemblockRegion } from '../../src/kernel/memblock.ts';

const pages = (bytes: number): number => bytes / PAGE_4K;

function region(start: number, end: number, node = 0): MemblockRegion {
  return { start, end, node, kind: 'ram' };
}

const TWO_NODES = [
  region(0, 0x9f000),
  region(MIB, 3 * GIB),
  region(4 * GIB, 8 * GIB),
  region(8 * GIB, 12 * GIB, 1),
];

describe('buddy allocation', () => {
  it('gives naturally aligned chunks from the highest zone of the node', () => {
    const allocator = new PageAllocator(TWO_NODES);
    for (let order = 0; order <= MAX_ORDER; order++) {
      const pfn = allocator.allocPages(order, { node: 0, purpose: 'test' })!;
      expect(pfn % 2 ** order).toBe(0);
      expect(pfn).toBeGreaterThanOrEqual(pages(4 * GIB));
      expect(allocator.nodeOf(pfn)).toBe(0);
    }
    allocator.audit();
  });

  it('falls back to lower zones, then to other nodes, and not at all when told so', () => {
    const allocator = new PageAllocator([region(0, 32 * MIB), region(4 * GIB, 4 * GIB + 4 * MIB, 1)]);
    const starts = Array.from(
      { length: 8 },
      () => allocator.allocPages(MAX_ORDER, { node: 0, purpose: 'test' })!,
    );
    expect(starts.map((pfn) => pfn * PAGE_4K)).toEqual([
      ...[16, 20, 24, 28, 4, 8, 12].map((mib) => mib * MIB),
      4 * GIB,
    ]);
    expect(allocator.allocPages(MAX_ORDER, { node: 0, purpose: 'test' })).toBeNull();
    const other = new PageAllocator([region(MIB, 2 * MIB), region(4 * GIB, 5 * GIB, 1)]);
    expect(other.allocPages(MAX_ORDER, { node: 0, fallback: false, purpose: 'test' })).toBeNull();
  });

  it('merges buddies back into whole blocks', () => {
    const allocator = new PageAllocator([region(16 * MIB, 24 * MIB)]);
    const singles = Array.from({ length: 2048 }, () => allocator.allocPages(0, { purpose: 'test' })!);
    expect(new Set(singles).size).toBe(2048);
    expect(allocator.allocPages(0, { purpose: 'test' })).toBeNull();
    for (const pfn of singles) allocator.freePages(pfn, 1);
    expect(allocator.wholeFreeBlocks(0)).toEqual([pages(16 * MIB), pages(20 * MIB)]);
    allocator.audit();
  });

  it('refuses a double free and pages that are not memory', () => {
    const allocator = new PageAllocator(TWO_NODES);
    const pfn = allocator.allocPages(3, { purpose: 'test' })!;
    allocator.freePages(pfn, 8);
    expect(() => allocator.freePages(pfn, 8)).toThrow(/free/);
    expect(() => allocator.freePages(pages(3 * GIB), 1)).toThrow(/not memory/);
  });

  it('calls the fault point with purpose and index, and allocates nothing when it strikes', () => {
    const allocator = new PageAllocator(TWO_NODES);
    const asked: [string, number][] = [];
    allocator.fault = (purpose, index) => {
      asked.push([purpose, index]);
      return index === 1;
    };
    expect(allocator.allocPages(0, { purpose: 'a' })).not.toBeNull();
    expect(allocator.allocContig(10, { node: 0, purpose: 'b' })).toBeNull();
    expect(allocator.allocPages(0, { purpose: 'c' })).not.toBeNull();
    expect(asked).toEqual([
      ['a', 0],
      ['b', 1],
      ['c', 2],
    ]);
    expect(allocator.accounts()[0]!.used).toBe(2);
  });
});

describe('contiguous allocation', () => {
  it('looks in steps of its size from the highest zone down, then on other nodes of the mask', () => {
    const allocator = new PageAllocator(TWO_NODES);
    const size = pages(3 * GIB);
    const normal = allocator.allocContig(size, { node: 0, purpose: 'test' })!;
    expect(normal * PAGE_4K).toBe(4 * GIB);
    const second = allocator.allocContig(pages(GIB), { node: 0, purpose: 'test' })!;
    expect(second * PAGE_4K).toBe(7 * GIB);
    expect(allocator.allocContig(size, { node: 0, nodemask: new Set([0]), purpose: 'test' })).toBeNull();
    const spilled = allocator.allocContig(size, { node: 0, purpose: 'test' })!;
    expect(allocator.nodeOf(spilled)).toBe(1);
    allocator.audit();
  });

  it('fails on a fragmented host although nearly all memory is free, and works again once it is tidied', () => {
    const allocator = new PageAllocator(TWO_NODES);
    const pinned = fragment(allocator, { share: 1, seed: 7n });
    const { free, total } = allocator.accounts()[0]!;
    expect(free / total).toBeGreaterThan(0.99);
    expect(allocator.allocContig(pages(16 * MIB), { node: 0, purpose: 'pamt' })).toBeNull();
    expect(allocator.allocPages(MAX_ORDER, { node: 0, purpose: 'test' })).toBeNull();
    expect(allocator.allocPages(5, { node: 0, purpose: 'test' })).not.toBeNull();
    allocator.audit();
    for (const pfn of pinned) allocator.freePages(pfn, 1);
    expect(allocator.allocContig(pages(16 * MIB), { node: 0, purpose: 'pamt' })).not.toBeNull();
  });

  it('fragments the same way for the same seed, and only the node it is told', () => {
    const pinned = [1n, 1n, 2n].map((seed) =>
      fragment(new PageAllocator(TWO_NODES), { node: 1, share: 0.5, seed }),
    );
    expect(pinned[0]).toEqual(pinned[1]);
    expect(pinned[0]).not.toEqual(pinned[2]);
    expect(pinned[0]!.every((pfn) => pfn >= pages(8 * GIB))).toBe(true);
  });

  it('fragments the share it is told', () => {
    const fresh = new PageAllocator(TWO_NODES);
    const blocks = [0, 1].reduce((sum, node) => sum + fresh.wholeFreeBlocks(node).length, 0);
    const pinned = (share: number): number =>
      fragment(new PageAllocator(TWO_NODES), { share, seed: 5n }).length;
    expect([pinned(0), pinned(1)]).toEqual([0, blocks]);
    expect(Math.abs(pinned(0.25) / blocks - 0.25)).toBeLessThan(0.05);
  });

  it('gives back what it moved when it cannot move all of a window', () => {
    const allocator = new PageAllocator([region(16 * MIB, 24 * MIB)]);
    const taken: number[] = [];
    for (let i = 0; i < 2048; i++) taken.push(allocator.allocPages(0, { movable: true, purpose: 'test' })!);
    const free = taken.find((pfn) => pfn >= pages(20 * MIB) + 100)!;
    allocator.freePages(free, 1);
    const places = new Set(taken.filter((pfn) => pfn !== free));
    allocator.onMigrate = (from, to) => {
      expect(places.delete(from)).toBe(true);
      places.add(to);
    };
    expect(allocator.allocContig(1024, { node: 0, purpose: 'test' })).toBeNull();
    expect(allocator.accounts()).toMatchObject([{ node: 0, total: 2048, free: 1, used: 2047 }]);
    allocator.audit();
    for (const pfn of places) allocator.freePages(pfn, 1);
    expect(allocator.accounts()[0]!.free).toBe(2048);
  });

  it('moves movable pages out of the way and tells their owner', () => {
    const allocator = new PageAllocator([region(16 * MIB, 32 * MIB)]);
    const movable = allocator.allocPages(2, { movable: true, purpose: 'user' })!;
    const moves: number[][] = [];
    allocator.onMigrate = (from, to, order) => moves.push([from, to, order]);
    const window = allocator.allocContig(pages(8 * MIB), { node: 0, purpose: 'test' })!;
    expect(window * PAGE_4K).toBe(16 * MIB);
    expect(moves).toEqual([[movable, expect.any(Number), 2]]);
    expect(moves[0]![1]! * PAGE_4K).toBeGreaterThanOrEqual(24 * MIB);
    expect(allocator.accounts()[0]!.used).toBe(pages(8 * MIB) + 4);
    allocator.audit();
  });

  it('takes nothing when movable pages find no other place', () => {
    const allocator = new PageAllocator([region(16 * MIB, 20 * MIB)]);
    allocator.allocPages(2, { movable: true, purpose: 'user' });
    expect(allocator.allocContig(pages(4 * MIB), { node: 0, purpose: 'test' })).toBeNull();
    expect(allocator.accounts()[0]!.used).toBe(4);
    allocator.audit();
  });
});

describe('memory coming and going', () => {
  it('takes memory out only when what is in it can move', () => {
    const allocator = new PageAllocator([region(4 * GIB, 5 * GIB)]);
    const pinned = allocator.allocPages(0, { purpose: 'test' })!;
    expect(allocator.removeMemory({ start: 4 * GIB, end: 4 * GIB + 128 * MIB })).toBe(false);
    allocator.freePages(pinned, 1);
    expect(allocator.removeMemory({ start: 4 * GIB, end: 4 * GIB + 128 * MIB })).toBe(true);
    expect(allocator.accounts()).toMatchObject([
      { node: 0, total: pages(896 * MIB), free: pages(896 * MIB), used: 0 },
    ]);
    allocator.addMemory({ start: 4 * GIB, end: 4 * GIB + 128 * MIB }, 0);
    allocator.addMemory({ start: 5 * GIB, end: 6 * GIB }, 0);
    expect(allocator.accounts()[0]!.free).toBe(pages(2 * GIB));
    allocator.audit();
  });
});

describe('scale', () => {
  it('holds 16 TiB in well under a MiB per node', () => {
    const before = process.memoryUsage().arrayBuffers;
    const allocator = new PageAllocator(
      [0, 1, 2, 3].map((node) => region(4 * node * TIB + (node === 0 ? MIB : 0), 4 * (node + 1) * TIB, node)),
    );
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(MIB);
    const pfn = allocator.allocContig(pages(16 * GIB), { node: 3, purpose: 'pamt' })!;
    expect(allocator.nodeOf(pfn)).toBe(3);
    expect(allocator.accounts()[3]!.used).toBe(pages(16 * GIB));
  });
});

describe('accounts', () => {
  it('balance under random operations, and everything freed is everything back', () => {
    const operation = fc.oneof(
      fc.record({
        kind: fc.constant('buddy'),
        order: fc.integer({ min: 0, max: 10 }),
        node: fc.integer({ min: 0, max: 1 }),
        movable: fc.boolean(),
      }),
      fc.record({
        kind: fc.constant('contig'),
        pages: fc.integer({ min: 1, max: 5000 }),
        node: fc.integer({ min: 0, max: 1 }),
      }),
      fc.record({ kind: fc.constant('free'), pick: fc.nat() }),
    );
    const layout = [
      region(0, 0x9f000),
      region(MIB, 23 * MIB + 0x5000),
      region(30 * MIB, 64 * MIB),
      region(4 * GIB + 0x3000, 4 * GIB + 50 * MIB, 1),
    ];
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 120, size: 'max' }), (operations) => {
        const allocator = new PageAllocator(layout);
        const initial = allocator.accounts();
        const held = new Map<number, number>();
        allocator.onMigrate = (from, to) => {
          held.set(to, held.get(from)!);
          held.delete(from);
        };
        const hold = (pfn: number | null, count: number): void => {
          if (pfn === null) return;
          for (const [start, size] of held) expect(pfn + count <= start || start + size <= pfn).toBe(true);
          held.set(pfn, count);
        };
        for (const op of operations) {
          if ('order' in op) hold(allocator.allocPages(op.order, { ...op, purpose: 'p' }), 2 ** op.order);
          else if ('pages' in op) hold(allocator.allocContig(op.pages, { ...op, purpose: 'p' }), op.pages);
          else if (held.size > 0) {
            const pfn = [...held.keys()][op.pick % held.size]!;
            allocator.freePages(pfn, held.get(pfn)!);
            held.delete(pfn);
          }
          allocator.audit();
          const used = allocator.accounts().reduce((sum, account) => sum + account.used, 0);
          expect(used).toBe([...held.values()].reduce((sum, count) => sum + count, 0));
        }
        for (const [pfn, count] of held) allocator.freePages(pfn, count);
        allocator.audit();
        expect(allocator.accounts()).toEqual(initial);
      }),
      { numRuns: 60 },
    );
  });
});
