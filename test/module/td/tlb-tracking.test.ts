import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TDCS } from '../../../src/module/td/layout.ts';
import { isTlbTracked } from '../../../src/module/td/tlb-tracking.ts';
import { readyTd } from '../../support/ready-td.ts';

describe('TLB tracking', () => {
  it('says yes only when no vCPU still runs in the epoch of the blocking or before', () => {
    const { td } = readyTd();
    // A vCPU runs in the epoch it was entered in; TRACK lets it lag behind by one at most.
    const vcpus = fc.array(fc.constantFrom(0n, 1n), { maxLength: 4 });
    fc.assert(
      fc.property(fc.bigInt(1n, 50n), fc.bigInt(0n, 50n), vcpus, (epoch, since, lags) => {
        fc.pre(since <= epoch);
        const running = lags.map((lag) => epoch - lag);
        td.tdcs.setU64(TDCS.TD_EPOCH, epoch);
        for (const parity of [0, 1]) {
          const count = running.filter((entered) => entered % 2n === BigInt(parity)).length;
          td.tdcs.setU16(TDCS.REFCOUNT + 2 * parity, count);
        }
        const reachable = since === epoch || running.some((entered) => entered <= since);
        expect(isTlbTracked(td, since)).toBe(!reachable);
      }),
    );
  });

  it('never takes a migration epoch for a blocking', () => {
    const { td } = readyTd();
    td.tdcs.setU64(TDCS.TD_EPOCH, 9n);
    expect(isTlbTracked(td, 1n << 63n)).toBe(false);
  });
});
