import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { array, bytes, s32, struct, u8, u16, u32, u64, u64s } from '../../src/abi/struct.ts';

const INNER = struct({ low: u16, high: u16 });
const SAMPLE = struct({
  byte: u8,
  pad: bytes(3),
  signed: s32,
  wide: u64,
  words: u64s(2),
  inner: INNER,
  pairs: array(INNER, 2),
  last: u32,
});

describe('struct', () => {
  it('puts fields one after the other and counts their bytes', () => {
    expect(SAMPLE.bytes).toBe(48);
    expect(SAMPLE.offsets).toEqual({
      byte: 0,
      pad: 1,
      signed: 4,
      wide: 8,
      words: 16,
      inner: 32,
      pairs: 36,
      last: 44,
    });
  });

  it('is little endian', () => {
    const wide = 0x0102_0304_0506_0708n;
    expect([...SAMPLE.encode({ wide }).subarray(8, 16)]).toEqual([8, 7, 6, 5, 4, 3, 2, 1]);
    expect([...SAMPLE.encode({ signed: -2 }).subarray(4, 8)]).toEqual([0xfe, 0xff, 0xff, 0xff]);
  });

  it('leaves out what is not given: zero when encoded, untouched when patched', () => {
    expect(SAMPLE.encode()).toEqual(new Uint8Array(48));
    const buffer = new Uint8Array(52).fill(0xaa);
    SAMPLE.patch(buffer, { wide: 0n, words: [1n] }, 4);
    expect(buffer.subarray(12, 20)).toEqual(new Uint8Array(8));
    expect(SAMPLE.decode(buffer, 4).words).toEqual([1n, 0xaaaa_aaaa_aaaa_aaaan]);
    expect(buffer.filter((byte) => byte !== 0xaa).length).toBe(16);
  });

  it('gives bytes that are nobody else’s', () => {
    const buffer = new Uint8Array(48);
    const { pad } = SAMPLE.decode(buffer);
    buffer.fill(1);
    expect(pad).toEqual(new Uint8Array(3));
  });

  it('refuses buffers that end too early and values that are too many', () => {
    expect(() => SAMPLE.decode(new Uint8Array(47))).toThrow(RangeError);
    expect(() => SAMPLE.encode({ words: [1n, 2n, 3n] })).toThrow('3 values for an array of 2');
    expect(() => SAMPLE.encode({ pad: new Uint8Array(4) })).toThrow('4 bytes for a field of 3');
  });

  it('decodes what it encodes', () => {
    const pair = fc.record({ low: fc.nat(0xffff), high: fc.nat(0xffff) });
    const u64Value = fc.bigInt(0n, 2n ** 64n - 1n);
    const values = fc.record({
      byte: fc.nat(0xff),
      pad: fc.uint8Array({ minLength: 3, maxLength: 3 }),
      signed: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
      wide: u64Value,
      words: fc.array(u64Value, { minLength: 2, maxLength: 2 }),
      inner: pair,
      pairs: fc.array(pair, { minLength: 2, maxLength: 2 }),
      last: fc.nat(2 ** 32 - 1),
    });
    fc.assert(
      fc.property(values, fc.nat(16), (given, offset) => {
        const buffer = new Uint8Array(SAMPLE.bytes + offset);
        SAMPLE.patch(buffer, given, offset);
        expect(SAMPLE.decode(buffer, offset)).toEqual(given);
        expect(SAMPLE.decode(SAMPLE.encode(given))).toEqual(given);
      }),
    );
  });

  it('encodes what it decodes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 48, maxLength: 48 }), (buffer) => {
        expect(SAMPLE.encode(SAMPLE.decode(buffer))).toEqual(buffer);
      }),
    );
  });
});
