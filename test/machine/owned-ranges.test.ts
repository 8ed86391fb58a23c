import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OwnedRanges } from '../../src/machine/owned-ranges.ts';

describe('owned ranges', () => {
  it('keeps a range that grows step by step as one entry', () => {
    const ranges = new OwnedRanges();
    for (let at = 0; at < 1000; at += 10) ranges.set(at, at + 10, 7);
    expect(ranges.list()).toEqual([{ start: 0, end: 1000, keyId: 7 }]);
  });

  it('agrees with an array of owners, stays sorted, disjoint and merged', () => {
    const step = fc.record({
      start: fc.integer({ min: 0, max: 60 }),
      length: fc.integer({ min: 0, max: 20 }),
      keyId: fc.integer({ min: 0, max: 3 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const ranges = new OwnedRanges();
        const owners = new Array<number>(100).fill(0);
        for (const { start, length, keyId } of steps) {
          ranges.set(start, start + length, keyId);
          owners.fill(keyId, start, start + length);
        }
        expect(owners.map((_, at) => ranges.at(at))).toEqual(owners);
        const list = ranges.list();
        for (const [i, range] of list.entries()) {
          expect(range.start).toBeLessThan(range.end);
          const next = list[i + 1];
          if (next === undefined) continue;
          expect(next.start).toBeGreaterThanOrEqual(range.end);
          if (next.start === range.end) expect(next.keyId).not.toBe(range.keyId);
        }
      }),
      { numRuns: 500 },
    );
  });
});
