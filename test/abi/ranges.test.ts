import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { AddressRange } from '../../src/abi/address.ts';
import { firstOverlap, intersect, subtract, union } from '../../src/abi/ranges.ts';

const SPACE = 40;
const ranges = fc.array(
  fc
    .tuple(fc.nat({ max: SPACE - 1 }), fc.integer({ min: 1, max: 8 }))
    .map(([start, size]) => ({ start, end: Math.min(SPACE, start + size) })),
  { maxLength: 8 },
);

const members = (list: readonly AddressRange[]): boolean[] =>
  Array.from({ length: SPACE }, (_, at) => list.some((range) => range.start <= at && at < range.end));

describe('sets of addresses', () => {
  it('agree with sets of single addresses', () => {
    fc.assert(
      fc.property(ranges, ranges, (a, b) => {
        const [inA, inB] = [members(a), members(b)];
        expect(members(union([...a, ...b]))).toEqual(inA.map((is, at) => is || inB[at]!));
        expect(members(subtract(a, b))).toEqual(inA.map((is, at) => is && !inB[at]!));
        expect(members(intersect(a, b))).toEqual(inA.map((is, at) => is && inB[at]!));
        for (const set of [union(a), subtract(a, b)]) {
          expect(set.every((range, i) => i === 0 || set[i - 1]!.end < range.start)).toBe(true);
        }
      }),
    );
  });

  it('find an overlap exactly when there is one', () => {
    fc.assert(
      fc.property(ranges, (list) => {
        const total = list.reduce((sum, { start, end }) => sum + end - start, 0);
        const distinct = members(list).filter(Boolean).length;
        expect(firstOverlap(list) === undefined).toBe(total === distinct);
      }),
    );
  });
});
