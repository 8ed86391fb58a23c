import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  alignDown,
  alignUp,
  GIB,
  index1g,
  index2m,
  index4k,
  isAligned,
  MIB,
  offsetIn,
} from '../../src/abi/address.ts';

/** Up to the widest physical address. */
const address = fc.bigInt({ min: 0n, max: 2n ** 52n - 1n });
const unit = fc.integer({ min: 0, max: 30 }).map((bits) => 2 ** bits);

describe('arithmetic of addresses', () => {
  it('agrees with that of big integers', () => {
    fc.assert(
      fc.property(address, unit, (exact, size) => {
        const value = Number(exact);
        const rest = exact % BigInt(size);
        expect(offsetIn(value, size)).toBe(Number(rest));
        expect(isAligned(value, size)).toBe(rest === 0n);
        expect(alignDown(value, size)).toBe(Number(exact - rest));
        expect(alignUp(value, size)).toBe(Number(rest === 0n ? exact : exact - rest + BigInt(size)));
      }),
    );
  });

  it('aligns to units that are no power of two', () => {
    expect([alignDown(100, 48), alignUp(100, 48), alignUp(96, 48)]).toEqual([96, 144, 96]);
    expect([isAligned(96, 48), isAligned(100, 48)]).toEqual([true, false]);
  });

  it('takes an address apart into block, range and page', () => {
    fc.assert(
      fc.property(address, (exact) => {
        const value = Number(exact);
        const page = index1g(value) * GIB + index2m(value) * 2 * MIB + index4k(value) * 4096;
        expect(page).toBe(Number(exact - (exact % 4096n)));
      }),
    );
  });
});
