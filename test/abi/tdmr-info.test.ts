import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeTdmrInfo, encodeTdmrInfo, TDMR_INFO_SIZE } from '../../src/abi/tdmr-info.ts';

const u64 = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn });

describe('TDMR_INFO', () => {
  it('keeps every value through memory', () => {
    const area = fc.record({ offset: u64, size: u64 });
    const info = fc.record({
      base: u64,
      size: u64,
      pamt1gBase: u64,
      pamt1gSize: u64,
      pamt2mBase: u64,
      pamt2mSize: u64,
      pamt4kBase: u64,
      pamt4kSize: u64,
      reserved: fc.array(area, { minLength: 16, maxLength: 16 }),
    });
    fc.assert(
      fc.property(info, (value) => {
        expect(decodeTdmrInfo(encodeTdmrInfo(value))).toEqual(value);
      }),
    );
  });

  it('has fields where the ABI puts them', () => {
    const bytes = encodeTdmrInfo({
      base: 1,
      size: 2,
      pamt1gBase: 3,
      pamt1gSize: 4,
      pamt2mBase: 5,
      pamt2mSize: 6,
      pamt4kBase: 7,
      pamt4kSize: 8,
      reserved: [{ offset: 9, size: 10 }],
    });
    expect(bytes).toHaveLength(TDMR_INFO_SIZE);
    expect([0, 8, 16, 24, 32, 40, 48, 56, 64, 72].map((at) => bytes[at])).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
    ]);
  });

  it('does not hold more than 16 reserved areas', () => {
    const reserved = Array.from({ length: 17 }, () => ({ offset: 0n, size: 0n }));
    const empty = decodeTdmrInfo(new Uint8Array(TDMR_INFO_SIZE));
    expect(() => encodeTdmrInfo({ ...empty, reserved })).toThrow(/16 reserved areas/);
  });
});
