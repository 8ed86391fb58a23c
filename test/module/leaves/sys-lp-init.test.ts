import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CPUID_POLICIES, type CpuidQuad } from '../../../src/abi/cpuid-policy.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { cpuidKeys } from '../../../src/machine/platform.ts';
import { type ModuleMachine, moduleMachine } from '../../support/module-machine.ts';

const SYS_INIT = 33;
const LP_INIT = 35;

function initialized(): ModuleMachine {
  const host = moduleMachine();
  host.call(SYS_INIT);
  return host;
}

describe('TDH.SYS.LP.INIT', () => {
  it('checks lock, state and LP in this order, zeroing its outputs first', () => {
    const host = moduleMachine();
    const junk = { rcx: 5n, rdx: 6n, r8: 7n, r9: 8n, r10: 9n };
    const kept = { r9: 8n, r10: 9n };
    host.module.globalLock.word = 1;
    expect(host.call(LP_INIT, junk)).toEqual({ rax: STATUS.TDX_SYS_BUSY, ...kept });
    host.module.globalLock.word = 0;
    expect(host.call(LP_INIT, junk)).toEqual({ rax: STATUS.TDX_SYS_LP_INIT_NOT_PENDING, ...kept });
    host.call(SYS_INIT);
    host.module.globalLock.word = 2;
    expect(host.call(LP_INIT, junk)).toEqual({ rax: 0n, ...kept });
    expect(host.call(LP_INIT, junk)).toEqual({ rax: STATUS.TDX_SYS_LP_INIT_DONE, ...kept });
    expect(host.module.globalLock.word).toBe(2);
  });

  it('says where each LP is', () => {
    const host = initialized();
    for (const { index } of host.machine.lps) expect(host.status(LP_INIT, {}, index)).toBe(0n);
    expect(host.module.lps).toEqual([
      { package: 0, core: 0 },
      { package: 0, core: 0 },
      { package: 1, core: 0 },
      { package: 1, core: 0 },
    ]);
    const other = initialized();
    other.machine.lps[1]!.apicId = 0x80 * 7 + 0x1b;
    other.call(LP_INIT, {}, 1);
    expect(other.module.lps[1]).toEqual({ package: 7, core: 0xd });
  });

  it('refuses a ninth package', () => {
    const host = initialized();
    host.machine.lps[3]!.apicId = 0x483;
    expect(host.status(LP_INIT, {}, 3)).toBe(STATUS.TDX_INVALID_PKG_ID | 9n);
    expect(host.module.lps[3]).toBeUndefined();
  });

  it('refuses SEAM capabilities unlike those of SYS.INIT, and a limited CPUID', () => {
    const host = initialized();
    host.machine.seam.seamopsCapabilities = 0x3f;
    expect(host.status(LP_INIT)).toBe(STATUS.TDX_INCOMPATIBLE_SEAM_CAPABILITIES);
    host.machine.seam.seamopsCapabilities = 0x7f;
    host.machine.lps[0]!.msrs.set(0x1a0, 0x44_0081n);
    expect(host.status(LP_INIT)).toBe(STATUS.TDX_LIMIT_CPUID_MAXVAL_SET);
    host.machine.lps[0]!.msrs.set(0x1a0, 0x4_0001n);
    expect(host.status(LP_INIT)).toBe(0n);
  });

  it('zeroes the line for fatal-error details under its KeyID', () => {
    const host = moduleMachine();
    const ones = new Uint8Array(192).fill(0xff);
    host.machine.memory.write(0x10_0000, ones, 5);
    host.call(0x1_0021, { r8: (5n << 46n) | 0x10_0040n });
    expect(host.machine.memory.read(0x10_0000, 192, 5)).toEqual(ones);
    host.call(LP_INIT);
    expect(host.machine.memory.read(0x10_0000, 192, 5)).toEqual(ones.fill(0, 64, 128));
  });
});

describe('what LP.INIT compares', () => {
  /** In the order of the comparison, CPUID between the first four and the rest. */
  const MSRS = [
    0xcf, 0x10a, 0xbc, 0xbd, 0x3b, 0xfe, 0x1f2, 0x1f3, 0x480, 0x48d, 0x48e, 0x48b, 0x492, 0x48f, 0x490, 0x485,
    0x48c, 0x486, 0x487, 0x488, 0x489, 0x345, 0x981, 0x982, 0x87, 0x98, 0x99,
  ];

  it('every bit of every MSR, and names the first that differs', () => {
    const host = initialized();
    const lp = host.machine.lps[1]!;
    const change = fc.record({ address: fc.constantFrom(...MSRS), bit: fc.integer({ min: 0, max: 63 }) });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), (changes) => {
        lp.msrs.clear();
        for (const { address, bit } of changes) {
          lp.msrs.set(address, (host.machine.msrs.get(address) ?? 0n) ^ (1n << BigInt(bit)));
        }
        const first = MSRS.find((address) => changes.some((each) => each.address === address))!;
        expect(host.call(LP_INIT, {}, 1)).toEqual({ rax: STATUS.TDX_INCONSISTENT_MSR | BigInt(first) });
      }),
      { numRuns: 1000 },
    );
  });

  it('no MSR that SYS.INIT did not sample', () => {
    const host = initialized();
    for (const address of [0x122, 0x1a1, 0x1f6, 0x1f7, 0x1400, 0x1401])
      host.machine.lps[1]!.msrs.set(address, 1n);
    expect(host.status(LP_INIT, {}, 1)).toBe(0n);
  });

  it('each verified bit of every CPUID leaf, and tells the leaf and its mask', () => {
    const pair = (low: number, high: number): bigint => BigInt(low) | (BigInt(high) << 32n);
    for (const { leaf, subleaf = 0xffff_ffff, verifySame = [0, 0, 0, 0] as const } of CPUID_POLICIES) {
      const [key] = cpuidKeys(leaf, subleaf);
      const host = initialized();
      const native = host.machine.lps[0]!.cpuid(leaf, subleaf);
      for (let bit = 0; bit < 128; bit++) {
        const register = Math.floor(bit / 32);
        if (((verifySame[register]! >>> (bit % 32)) & 1) === 0) continue;
        const changed: number[] = [...native];
        changed[register] = (native[register]! ^ (1 << (bit % 32))) >>> 0;
        host.machine.cpuid.set(key, changed as unknown as CpuidQuad);
        const { rax, rcx = 0n, rdx = 0n, r8 = 0n } = host.call(LP_INIT);
        expect({ key, bit, rax, rcx, rdx, r8 }).toEqual({
          key,
          bit,
          rax: STATUS.TDX_INCONSISTENT_CPUID_FIELD,
          rcx: pair(leaf, subleaf),
          rdx: pair(verifySame[0], verifySame[1]),
          r8: pair(verifySame[2], verifySame[3]),
        });
      }
    }
  });

  it('no other bit of any leaf', () => {
    const host = initialized();
    for (const { leaf, subleaf = 0xffff_ffff, verifySame = [0, 0, 0, 0] as const } of CPUID_POLICIES) {
      const native = host.machine.lps[0]!.cpuid(leaf, subleaf);
      const changed = native.map((word, i) => (word ^ ~verifySame[i]!) >>> 0) as unknown as CpuidQuad;
      host.machine.cpuid.set(cpuidKeys(leaf, subleaf)[0], changed);
    }
    expect(host.status(LP_INIT)).toBe(0n);
  });
});
