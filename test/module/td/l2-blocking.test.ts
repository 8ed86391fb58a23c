import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { l2Attributes, l2Blocked, l2Unblocked } from '../../../src/module/td/l2-blocking.ts';
import { L2_STATE, l2State, l2TableEntry } from '../../../src/module/td/l2-sept.ts';
import { SEPT_STATE, type SeptEntry, septEntry } from '../../../src/module/td/sept-entry.ts';

/** TDB and PWA in the high half. */
const TDB = 1 << 23;
const PWA = 1 << 26;
const VALID = 0x8000;
const own = (state: keyof typeof SEPT_STATE): SeptEntry => septEntry(SEPT_STATE[state], 0, 5);

/** A mapped L2 page: write-back, TDMEM, leaf; R, W, X, XU and VGP, PWA, SSS, SVE as attributes say. */
const mapped = fc
  .record({ pfn: fc.nat(0xf_ffff), permissions: fc.nat(15), high: fc.subarray([25, 26, 28, 31]) })
  .map(({ pfn, permissions, high }): SeptEntry & { permissions: number } => ({
    low: (((pfn << 12) >>> 0) | 0xf0 | (permissions & 7) | ((permissions >> 3) << 10)) >>> 0,
    high: high.reduce((bits, bit) => (bits | (1 << bit)) >>> 0, 0),
    permissions,
  }));

describe('entries of L2 VMs', () => {
  it('grant nothing while blocked, and what they granted before once unblocked', () => {
    fc.assert(
      fc.property(mapped, ({ low, high }) => {
        const entry = { low, high };
        const shut = l2Blocked(entry, false);
        expect([shut.low & 0x407, shut.high & (PWA | TDB), l2State(shut)]).toEqual([
          0,
          TDB,
          L2_STATE.BLOCKED,
        ]);
        expect(l2Unblocked(shut)).toEqual(entry);
        expect(l2Unblocked(entry)).toEqual(entry);
      }),
    );
  });

  it('tell the same attributes blocked or not', () => {
    fc.assert(
      fc.property(mapped, ({ low, high, permissions }) => {
        const entry = { low, high };
        const attributes = l2Attributes(entry, own('MAPPED'));
        expect(attributes & 0xf).toBe(permissions);
        expect(attributes & VALID).toBe(VALID);
        expect(l2Attributes(l2Blocked(entry, false), own('BLOCKED'))).toBe(attributes);
      }),
    );
  });

  it('keep W and PWA that blocking for writing saved', () => {
    // Blocked for writing: W and PWA are saved in bits 59 and 52 and cleared, R stays.
    const readOnly = { low: 0xf1, high: TDB | (1 << 27) | (1 << 20) };
    const shut = l2Blocked(readOnly, true);
    expect(l2Unblocked(shut)).toEqual({ low: 0xf3, high: PWA });
    expect(l2Attributes(readOnly, own('BLOCKEDW'))).toBe(VALID | 1 | 2 | 32);
    expect(l2Attributes(shut, own('PENDING_BLOCKEDW'))).toBe(VALID | 1 | 2 | 32);
  });

  it('are tables or free, too', () => {
    const table = l2TableEntry(77);
    const shut = l2Blocked(table, false);
    expect([l2State(table), l2State(shut)]).toEqual([L2_STATE.NL_MAPPED, L2_STATE.NL_BLOCKED]);
    expect(shut.low & 0x407).toBe(0);
    expect(l2Unblocked(shut)).toEqual(table);
    expect(l2Attributes(shut, own('NL_BLOCKED'))).toBe(VALID | 15);
    expect(l2Attributes({ low: 0, high: 0 }, own('MAPPED'))).toBe(0);
    expect(l2Attributes({ low: 0, high: 0x8000_0000 }, own('MAPPED'))).toBe(128);
  });
});
