import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { packData, unpackData } from '../../../src/lab/snapshot/plain-data.ts';

const leaf = fc.oneof(
  fc.string(),
  fc.boolean(),
  fc.constant(null),
  fc.constant(undefined),
  fc.integer(),
  fc.constant(Infinity),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.uint8Array(),
  fc.uint16Array(),
  fc.uint32Array(),
  fc.int32Array(),
  fc.float64Array({ noNaN: true }),
  fc.bigUint64Array(),
);
const key = fc.string().filter((name) => name !== '$' && name !== '__proto__');
const { data } = fc.letrec((tie) => ({
  data: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    leaf,
    fc.array(tie('data')),
    fc.dictionary(key, tie('data'), { noNullPrototype: true }),
    fc.array(fc.tuple(fc.integer(), tie('data'))).map((pairs) => new Map(pairs)),
    fc.array(fc.integer()).map((items) => new Set(items)),
  ),
}));

class Thing {
  field = 1;
}

describe('plain data', () => {
  it('comes back as it was', () => {
    fc.assert(
      fc.property(data, (value) => {
        expect(unpackData(packData(value))).toEqual(value);
      }),
    );
  });

  it('keeps the order of maps and sets', () => {
    const value = [
      new Map([
        [3, 'c'],
        [1, 'a'],
      ]),
      new Set([9, 2]),
    ] as const;
    const [map, set] = unpackData(packData(value)) as typeof value;
    expect([...map.keys(), ...set]).toEqual([3, 1, 9, 2]);
  });

  it('comes back with arrays of its own', () => {
    const packed = packData([Uint8Array.of(1), Uint8Array.of(2)]);
    const [first, second] = unpackData(packed) as Uint8Array[];
    first![0] = 7;
    expect(second![0]).toBe(2);
    expect(unpackData(packed)).toEqual([Uint8Array.of(1), Uint8Array.of(2)]);
  });

  it.each([
    ['an object of a class', { thing: new Thing() }, /Thing cannot be saved/],
    ['a function', [() => 1], /function cannot be saved/],
    ['an object with the tag of its own', { $: 'map' }, /cannot be saved/],
  ])('is not %s', (_, value, sentence) => {
    expect(() => packData(value)).toThrow(sentence);
  });
});
