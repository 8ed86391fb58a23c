import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_4K } from '../../../src/abi/address.ts';
import { CPUID_POLICIES, type CpuidQuad } from '../../../src/abi/cpuid-policy.ts';
import { formatStatus } from '../../../src/abi/status.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import type { MachineDescription } from '../../../src/machine/description.ts';
import { cpuidKeys } from '../../../src/machine/platform.ts';
import { RELEASES } from '../../../src/module/releases.ts';
import { type ModuleMachine, moduleMachine } from '../../support/module-machine.ts';

const SYS_INIT = 33;
const SYS_INIT_V1 = 0x1_0021;
const LP_INIT = 35;

function changeCpuid(
  { machine }: ModuleMachine,
  key: string,
  change: Partial<Record<0 | 1 | 2 | 3, number>>,
): void {
  const value: number[] = [...(machine.cpuid.get(key) ?? [0, 0, 0, 0])];
  for (const [register, bits] of Object.entries(change)) value[Number(register)] = bits >>> 0;
  machine.cpuid.set(key, value as unknown as CpuidQuad);
}

/** SYS.INIT where one CPUID leaf answers something else; keys are registers, EAX 0 to EDX 3. */
function withCpuid(key: string, change: Partial<Record<0 | 1 | 2 | 3, number>>) {
  const host = moduleMachine();
  changeCpuid(host, key, change);
  return host.call(SYS_INIT);
}

/** SYS.INIT where some MSRs hold something else. */
function withMsrs(msrs: Readonly<Record<number, bigint>>): bigint {
  const host = moduleMachine();
  for (const [address, value] of Object.entries(msrs)) host.machine.msrs.set(Number(address), value);
  return host.status(SYS_INIT);
}

describe('TDH.SYS.INIT', () => {
  it('succeeds on every release, width of addresses and split of KeyIDs, and so does LP.INIT', () => {
    const cases = fc.record({
      width: fc.constantFrom(46, 48, 52),
      release: fc.constantFrom(...RELEASES),
      mktme: fc.integer({ min: 0, max: 1023 }),
      tdx: fc.integer({ min: 1, max: 1023 }),
    });
    fc.assert(
      fc.property(cases, ({ width, release, mktme, tdx }) => {
        const host = moduleMachine({ physicalAddressBits: width, keyIds: { mktme, tdx } }, release);
        expect(host.call(SYS_INIT)).toEqual({ rax: 0n });
        for (const lp of host.machine.lps) expect(host.call(LP_INIT, {}, lp.index)).toEqual({ rax: 0n });
        const platform = host.module.platform!;
        expect(platform).toMatchObject({
          maxPa: width,
          privateHkidMin: mktme + 1,
          privateHkidMax: mktme + tdx,
          lps: 4,
          packages: 2,
        });
        expect(platform.hkidStartBit).toBe(host.machine.keyIdStartBit);
      }),
    );
  });

  it('tells what it learnt', () => {
    const host = moduleMachine();
    host.call(SYS_INIT);
    expect(host.module.platform).toMatchObject({
      fms: 0x806f8,
      maxPa: 52,
      hkidStartBit: 46,
      hkidMask: 0xf_c000_0000_0000n,
      tscHz: 2_500_000_000,
      crystalHz: 25_000_000,
      xcr0Mask: 0x602e7,
      xssMask: 0x1900,
      xfdFaultingMask: 1 << 18,
      fixedCounters: 0xf,
      maxLbrDepth: 32,
      x2apic: { coreShift: 1, coreMask: 0x3f, packageShift: 7 },
      attributesFixed0: 0x8000_0000_7001_0001n,
      attributesFixed1: 0n,
      xfamFixed0: 0x61be7n,
      xfamFixed1: 3n,
      configFlagsFixed0: 0x1fn,
      configFlagsFixed1: 0n,
      seamrr: { start: 15 * GIB, end: 15 * GIB + 256 * MIB },
      features: { waitpkg: true, la57: true, lass: false, hle: true, rtm: true, ddpd: false, xfd: true },
      vmx: {
        pinBased: 0x3f,
        procBased: 0x952261fa,
        procBased2: 0x173cb3fa,
        exit: 0x1f3fffff,
        entry: 0x3ef1ff,
      },
    });
  });

  it('follows the CPU and the packages: LASS, no WAITPKG, no AMX, lowest stepping', () => {
    const host = moduleMachine();
    changeCpuid(host, '7.1', { 0: 0x1c70 });
    changeCpuid(host, '7.0', { 2: 0xbb417fde });
    changeCpuid(host, 'd.0', { 0: 0x2e7 });
    host.machine.seam.mcheck.packageFms = [0x806f8, 0x806f6];
    expect(host.status(SYS_INIT)).toBe(0n);
    expect(host.module.platform).toMatchObject({
      attributesFixed0: 0x8000_0000_7801_0001n,
      xfamFixed0: 0x1be7n,
      fms: 0x806f6,
      vmx: { procBased2: 0x133cb3fa },
    });
  });

  it('checks version, lock, RCX and state in this order, zeroing its outputs first', () => {
    const host = moduleMachine();
    const junk = { rcx: 5n, rdx: 6n, r8: 7n, r9: 8n, r10: 9n, r11: 10n };
    host.module.globalLock.word = 1;
    expect(host.call(0x2_0021, junk)).toEqual({ rax: STATUS.TDX_OPERAND_INVALID, r11: 10n });
    expect(host.call(SYS_INIT, junk)).toEqual({ rax: STATUS.TDX_SYS_BUSY, r11: 10n });
    host.module.globalLock.word = 0;
    expect(host.call(SYS_INIT, junk)).toEqual({ rax: STATUS.TDX_OPERAND_INVALID | 1n, r11: 10n });
    expect(host.call(SYS_INIT, { ...junk, rcx: 0n })).toEqual({ rax: 0n, r11: 10n });
    expect(host.call(SYS_INIT, junk)).toEqual({ rax: STATUS.TDX_OPERAND_INVALID | 1n, r11: 10n });
    expect(host.status(SYS_INIT)).toBe(STATUS.TDX_SYS_INIT_NOT_PENDING);
    expect(host.module.globalLock.word).toBe(0);
  });

  it('leaves nothing behind when it fails', () => {
    const host = moduleMachine();
    host.machine.msrs.set(0xbc, 0n);
    host.call(SYS_INIT);
    expect(host.module.platform).toBeNull();
    expect(host.module.sysState).toBe('SYSINIT_PENDING');
    host.machine.msrs.set(0xbc, 1n);
    expect(host.status(SYS_INIT)).toBe(0n);
  });

  it('refuses SEAM capabilities without TD preserving, then a hand-off unlike its own, then a lack of entropy', () => {
    const host = moduleMachine();
    const { seam, entropy } = host.machine;
    entropy.exhausted = true;
    seam.handoff = { ...seam.handoff, pages: 12 };
    for (const bit of [4, 5]) {
      seam.seamopsCapabilities = 0x7f & ~(1 << bit);
      expect(host.status(SYS_INIT)).toBe(STATUS.TDX_INCOMPATIBLE_SEAM_CAPABILITIES);
    }
    seam.seamopsCapabilities = 0x30;
    expect(host.status(SYS_INIT)).toBe(STATUS.TDX_SYS_INCOMPATIBLE_SIGSTRUCT);
    seam.handoff = { ...seam.handoff, pages: 13, noDowngrade: false };
    expect(host.status(SYS_INIT)).toBe(STATUS.TDX_SYS_INCOMPATIBLE_SIGSTRUCT);
    seam.handoff = { ...seam.handoff, moduleHv: 2, noDowngrade: true };
    expect(host.status(SYS_INIT)).toBe(STATUS.TDX_SYS_INCOMPATIBLE_SIGSTRUCT);
    seam.handoff = { ...seam.handoff, moduleHv: 1 };
    expect(host.status(SYS_INIT)).toBe(STATUS.TDX_RND_NO_ENTROPY);
    entropy.exhausted = false;
    expect(host.status(SYS_INIT)).toBe(0n);
  });
});

describe('the fatal-error operand of version 1', () => {
  const INVALID = STATUS.TDX_OPERAND_INVALID | 8n;
  const NO_LINE = 0xf_ffff_ffff_ffc0n;
  const OPERANDS: readonly (readonly [what: string, r8: bigint, status: bigint])[] = [
    ['a line in memory', 0x123440n, 0n],
    ['reserved bit 0', 0x123441n, INVALID],
    ['reserved bit 5', 0x123460n, INVALID],
    ['reserved bit 52', (1n << 52n) | 0x123440n, INVALID],
    ['reserved bit 53', (1n << 53n) | 0x123440n, INVALID],
    ['the first line of the SEAM range', 0x3_c000_0000n, INVALID],
    ['the last line of the SEAM range', 0x3_cfff_ffc0n, INVALID],
    ['the line before the SEAM range', 0x3_bfff_ffc0n, 0n],
    ['the line after the SEAM range', 0x3_d000_0000n, 0n],
    ['the last shared KeyID', (31n << 46n) | 0x40n, 0n],
    ['the first private KeyID', (32n << 46n) | 0x40n, INVALID],
    ['no line', NO_LINE, 0n],
    ['no line, an interrupt of vector 15', NO_LINE | (1n << 54n) | (15n << 56n), INVALID],
    ['no line, an interrupt of vector 16', NO_LINE | (1n << 54n) | (16n << 56n), 0n],
    ['no line, an NMI', NO_LINE | (2n << 54n), 0n],
    ['no line, an SMI', NO_LINE | (3n << 54n), 0n],
  ];

  it.each(OPERANDS)('%s', (_what, r8, status) => {
    expect(moduleMachine().call(SYS_INIT_V1, { r8 })).toEqual({ rax: status });
  });

  it('is ignored by version 0', () => {
    const host = moduleMachine();
    expect(host.call(SYS_INIT, { r8: 0x3fn })).toEqual({ rax: 0n });
    expect(host.module.platform!.fatalInfoHpa).toBeNull();
  });

  it('is refused after the stack canary was drawn', () => {
    const host = moduleMachine();
    const untouched = moduleMachine();
    host.call(SYS_INIT_V1, { r8: 0x3fn });
    untouched.machine.entropy.next64();
    expect(host.machine.entropy.next64()).toBe(untouched.machine.entropy.next64());
  });
});

describe('MSRs at SYS.INIT', () => {
  /**
   * For each MSR, the single-bit changes of the small machine's value that are refused, by status. Bits that are
   * not listed may change. "fatal" is a combination that no CPU can have.
   */
  const REFUSED: readonly (readonly [address: number, refused: Readonly<Record<string, bigint>>])[] = [
    [0x3b, {}],
    [0xcf, {}],
    [0x87, { 'TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED(0x800)': 0xffff_f800_ffff_f800n }],
    [0x98, { 'TDX_INCORRECT_MSR_VALUE(0x99)': 0xffff_ffff_ffff_ffffn }],
    [0x99, { 'TDX_INCORRECT_MSR_VALUE(0x99)': 0xffff_ffff_ffff_ffffn }],
    [0xbc, { 'TDX_INCORRECT_MSR_VALUE(0xbc)': 0x1n }],
    [0xbd, { 'TDX_INCORRECT_MSR_VALUE(0xbd)': 0xffff_ffff_ffff_ffffn }],
    [
      0xfe,
      {
        TDX_SMRR_NOT_SUPPORTED: 0x800n,
        'TDX_SMRR_NOT_LOCKED(0x1)': 0x2000n,
        TDX_SMRR_LOCK_NOT_SUPPORTED: 0x4000n,
      },
    ],
    [0x10a, { 'TDX_INCORRECT_MSR_VALUE(0x10a)': 0x24_fd6fn }],
    [0x1a0, { 'TDX_INCORRECT_MSR_VALUE(0x1a0)': 0x880n, TDX_LIMIT_CPUID_MAXVAL_SET: 0x40_0000n }],
    [0x1f2, { TDX_INVALID_SMRR_CONFIGURATION: 0xfff_f000n, TDX_SMRR_OVERLAPS_CMR: 0xc000_0000n }],
    [0x1f3, { TDX_SMRR_NOT_LOCKED: 0x400n, TDX_INVALID_SMRR_CONFIGURATION: 0xf7ff_f000n }],
    [0x345, { 'TDX_INCORRECT_MSR_VALUE(0x345)': 0x3000n }],
    [0x480, { 'TDX_INCORRECT_MSR_VALUE(0x480)': 0xc0_0fff_0000_0000n }],
    [0x485, { 'TDX_INCORRECT_MSR_VALUE(0x485)': 0x2004_40e0n }],
    [0x486, { 'TDX_INCORRECT_MSR_VALUE(0x486)': 0xffff_ffff_7fff_ffden }],
    [0x487, { 'TDX_INCORRECT_MSR_VALUE(0x487)': 0x21n, 'TDX_INCORRECT_MSR_VALUE(0x486)': 0x8005_001en }],
    [0x488, { 'TDX_INCORRECT_MSR_VALUE(0x488)': 0xffff_ffff_ffff_dfbfn }],
    [0x489, { 'TDX_INCORRECT_MSR_VALUE(0x489)': 0x2040n }],
    [0x48b, { 'TDX_INCORRECT_MSR_VALUE(0x48b)': 0xcf7d_bffe_ecd7_7e0dn }],
    [0x48c, { 'TDX_INCORRECT_MSR_VALUE(0x48c)': 0x101_0633_4041n }],
    [0x48d, { 'TDX_INCORRECT_MSR_VALUE(0x48d)': 0xa9_0000_00c0n, fatal: 0x16_0000_0000n }],
    [0x48e, { 'TDX_INCORRECT_MSR_VALUE(0x48e)': 0xf9fb_9e8c_6ad9_9e04n, fatal: 0x0400_6172_0000_0000n }],
    [0x48f, { 'TDX_INCORRECT_MSR_VALUE(0x48f)': 0x5f3c_9204_e0c0_0000n, fatal: 0x3_6dfb_0000_0000n }],
    [0x490, { 'TDX_INCORRECT_MSR_VALUE(0x490)': 0x7e_e204_0041_0e00n, fatal: 0x11fb_0000_0000n }],
    [0x492, { 'TDX_INCORRECT_MSR_VALUE(0x492)': 0x2en }],
    [0x981, {}],
    [0x982, { 'TDX_INCORRECT_MSR_VALUE(0x982)': 0x1n }],
  ];

  it.each(REFUSED)(
    'refuses each single-bit change of MSR %i that matters, and no other',
    (address, refused) => {
      const found: Record<string, bigint> = {};
      for (let bit = 0n; bit < 64n; bit++) {
        const host = moduleMachine();
        host.machine.msrs.set(address, (host.machine.msrs.get(address) ?? 0n) ^ (1n << bit));
        const status = statusOrFatal(host);
        if (status !== 'TDX_SUCCESS') found[status] = (found[status] ?? 0n) | (1n << bit);
      }
      expect(found).toEqual(refused);
    },
  );

  function statusOrFatal(host: ModuleMachine): string {
    try {
      return formatStatus(host.status(SYS_INIT));
    } catch (error) {
      expect((error as Error).message).toMatch(/^TDX module fatal error/);
      return 'fatal';
    }
  }

  it('does without what early Granite Rapids lacks', () => {
    const host = moduleMachine();
    host.machine.seam.mcheck.packageFms = [0xa06d0];
    host.machine.msrs.set(0xbd, 0n);
    changeCpuid(host, '6.*', { 0: 0x80_0000 });
    changeCpuid(host, '7.2', { 3: 0 });
    expect(host.status(SYS_INIT)).toBe(0n);
    host.machine.lps[1]!.msrs.set(0xbd, 1n);
    expect(host.status(LP_INIT, {}, 1)).toBe(0n);
    expect(withCpuid('7.2', { 3: 0 }).rax).toBe(STATUS.TDX_INCORRECT_CPUID_VALUE);
  });

  it('wants virtual IA32_SPEC_CTRL from a CPU with DDPD, and ENCLV exiting only where it is offered', () => {
    const host = moduleMachine();
    changeCpuid(host, '7.2', { 3: 0x1f });
    host.machine.msrs.set(0x492, 0xffff_ff7fn);
    expect(host.status(SYS_INIT)).toBe(STATUS.TDX_INCORRECT_MSR_VALUE | 0x492n);
    host.machine.msrs.set(0x492, 0xffn);
    host.machine.msrs.set(0x48b, 0xefff_ffffn << 32n);
    expect(host.status(SYS_INIT)).toBe(0n);
    expect(host.module.platform!.vmx.procBased2).toBe(0x073cb3fa);
  });

  it('wants an algorithm allowed and activated: without integrity, or with it where MCHECK chose that', () => {
    expect(withMsrs({ 2433: 0x3f6_0000_0000n })).toBe(STATUS.TDX_INCORRECT_MSR_VALUE | 0x981n);
    expect(withMsrs({ 2434: 0x56_0000_0003n })).toBe(STATUS.TDX_INCORRECT_MSR_VALUE | 0x982n);
    expect(withMsrs({ 2433: 0x3f6_0000_000an })).toBe(STATUS.TDX_INCORRECT_MSR_VALUE | 0x981n);
    const host = moduleMachine();
    host.machine.seam.mcheck.integrity = true;
    expect(host.status(SYS_INIT)).toBe(STATUS.TDX_INCORRECT_MSR_VALUE | 0x981n);
    host.machine.msrs.set(0x981, 0x3f6_0000_0008n);
    expect(host.status(SYS_INIT)).toBe(STATUS.TDX_INCORRECT_MSR_VALUE | 0x982n);
    host.machine.msrs.set(0x982, 0x2_0056_0000_0003n);
    expect(host.status(SYS_INIT)).toBe(0n);
  });

  it('checks the second SMM range only where both MCHECK and MTRRCAP have it', () => {
    const host = moduleMachine();
    host.machine.msrs.set(0xfe, 0xed0an);
    host.machine.msrs.set(0x1f6, 0x1000_0006n);
    host.machine.msrs.set(0x1f7, 0xf000_0c00n);
    expect(host.status(SYS_INIT)).toBe(STATUS.TDX_SMRR_OVERLAPS_CMR | 0x0001n);
    host.machine.msrs.set(0x1f6, 0xe000_0006n);
    expect(host.status(SYS_INIT)).toBe(0n);
    host.machine.lps[1]!.msrs.set(0x1f6, 0n);
    expect(host.status(LP_INIT, {}, 1)).toBe(STATUS.TDX_INCONSISTENT_MSR | 0x1f6n);
    const without = moduleMachine();
    without.machine.seam.mcheck.smrr2 = false;
    without.machine.msrs.set(0xfe, 0xed0an);
    expect(without.status(SYS_INIT)).toBe(0n);
  });
});

describe('CPUID at SYS.INIT', () => {
  it('refuses each wrong bit of every verified leaf, and tells leaf, mask and expected value', () => {
    const pair = (low: number, high: number): bigint => BigInt(low) | (BigInt(high) << 32n);
    for (const { leaf, subleaf = 0xffff_ffff, verifyMask, verifyValue } of CPUID_POLICIES) {
      if (verifyMask === undefined || verifyValue === undefined) continue;
      const [exact] = cpuidKeys(leaf, subleaf);
      for (let bit = 0; bit < 128; bit++) {
        const register = Math.floor(bit / 32) as 0 | 1 | 2 | 3;
        if (((verifyMask[register] >>> (bit % 32)) & 1) === 0) continue;
        const host = moduleMachine();
        const native = host.machine.lps[0]!.cpuid(leaf, subleaf);
        host.machine.cpuid.set(exact, native);
        changeCpuid(host, exact, { [register]: native[register] ^ (1 << (bit % 32)) });
        const { rax, rcx, rdx = 0n, r8 = 0n, r9 = 0n, r10 = 0n } = host.call(SYS_INIT);
        expect({ exact, bit, rax, rcx, rdx, r8, r9, r10 }).toEqual({
          exact,
          bit,
          rax: STATUS.TDX_INCORRECT_CPUID_VALUE,
          rcx: pair(leaf, subleaf),
          rdx: pair(verifyMask[0], verifyMask[1]),
          r8: pair(verifyMask[2], verifyMask[3]),
          r9: pair(verifyValue[0], verifyValue[1]),
          r10: pair(verifyValue[2], verifyValue[3]),
        });
      }
    }
  });

  it('wants the leaves up to 0x1F and 0x80000008, and takes those above the CPU’s last as zero', () => {
    expect(withCpuid('0.*', { 0: 0x1e }).rax).toBe(STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED | 0x1fn);
    expect(withCpuid('80000000.*', { 0: 0x8000_0007 }).rax).toBe(
      STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED | 0x8000_0008n,
    );
    const host = moduleMachine();
    changeCpuid(host, '0.*', { 0: 0x1f });
    changeCpuid(host, '23.1', { 0: 0x100 });
    expect(host.status(SYS_INIT)).toBe(0n);
  });

  it('wants performance monitoring version 5 and at most seven fixed counters', () => {
    expect(withCpuid('a.*', { 0: 0x8300804 })).toEqual({
      rax: STATUS.TDX_INCORRECT_CPUID_VALUE,
      rcx: 0xffff_ffff_0000_000an,
      rdx: 0xfn,
      r9: 0x5n,
    });
    expect(withCpuid('a.*', { 3: 0x8607 }).rax).toBe(0n);
    expect(withCpuid('a.*', { 3: 0x8608 })).toEqual({
      rax: STATUS.TDX_INCORRECT_CPUID_VALUE,
      rcx: 0xffff_ffff_0000_000an,
      r8: 0x1f_ffff_ffffn,
      r10: 0x7_0000_007fn,
    });
  });

  it('wants the width of linear addresses to agree with five-level paging', () => {
    const wrong = { rax: STATUS.TDX_INCORRECT_CPUID_VALUE, rcx: 0xffff_ffff_8000_0008n, rdx: 0xff00n };
    expect(withCpuid('80000008.*', { 0: 0x3034 })).toEqual({ ...wrong, r9: 0x3900n });
    expect(withCpuid('7.0', { 2: 0xbb407ffe })).toEqual({ ...wrong, r9: 0x3000n });
  });

  it('wants the subleaves of 0x23 to be zero unless announced, and takes the leaf as zero without the feature', () => {
    const announce = (host: ModuleMachine): void => changeCpuid(host, '7.1', { 0: 0x1d30 });
    const host = moduleMachine();
    announce(host);
    changeCpuid(host, '23.0', { 0: 0b0011 });
    changeCpuid(host, '23.1', { 0: 0xff });
    changeCpuid(host, '23.3', { 2: 1 });
    expect(host.call(SYS_INIT)).toEqual({
      rax: STATUS.TDX_INCORRECT_CPUID_VALUE,
      rcx: 0x3_0000_0023n,
      rdx: 0xffff_ffff_ffff_ffffn,
      r8: 0xffff_ffff_ffff_ffffn,
    });
    changeCpuid(host, '23.0', { 0: 0b1011 });
    expect(host.status(SYS_INIT)).toBe(0n);
    expect(host.status(LP_INIT)).toBe(0n);
    const without = moduleMachine();
    changeCpuid(without, '23.3', { 2: 1 });
    expect(without.status(SYS_INIT)).toBe(0n);
    expect(without.call(LP_INIT)).toMatchObject({
      rax: STATUS.TDX_INCONSISTENT_CPUID_FIELD,
      rcx: 0x3_0000_0023n,
    });
  });

  it('wants a TSC ratio, and topology levels that ascend, are numbered and reach a core', () => {
    expect(withCpuid('15.*', { 1: 0 }).rax).toBe(STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED | 0x15n);
    const unrecognized = STATUS.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED;
    expect(withCpuid('1f.1', { 2: 0x202 }).rax).toBe(unrecognized);
    expect(withCpuid('1f.1', { 2: 0x101 }).rax).toBe(unrecognized);
    expect(withCpuid('1f.1', { 2: 0x601 }).rax).toBe(unrecognized);
    expect(withCpuid('1f.0', { 2: 0 }).rax).toBe(STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED);
    expect(withCpuid('1f.1', { 2: 0x1 }).rax).toBe(STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED);
    const tile = moduleMachine();
    changeCpuid(tile, '1f.2', { 0: 7, 2: 0x402 });
    changeCpuid(tile, '1f.1', { 0: 6 });
    expect(tile.status(SYS_INIT)).toBe(0n);
    expect(tile.module.platform!.x2apic).toEqual({ coreShift: 1, coreMask: 0x3f, packageShift: 7 });
  });

  it('wants the L3 cache to span the package', () => {
    for (const sharing of [63, 128, 255]) {
      const eax = ((0xfc1fc163 & ~(0xfff << 14)) | (sharing << 14)) >>> 0;
      const expected = sharing >= 64 && sharing < 128 ? 0n : STATUS.TDX_INVALID_WBINVD_SCOPE;
      expect(withCpuid('4.3', { 0: eax }).rax).toBe(expected);
    }
    expect(withCpuid('4.3', { 0: ((0xfc1fc163 & ~(0xfff << 14)) | (64 << 14)) >>> 0 }).rax).toBe(0n);
  });

  it('is fatal where the CPU contradicts itself', () => {
    const contradictions: readonly (readonly [
      key: string,
      change: Partial<Record<0 | 1 | 2 | 3, number>>,
    ])[] = [
      ['d.9', { 2: 1 }],
      ['d.8', { 2: 0 }],
      ['15.*', { 0: 0 }],
      ['15.*', { 2: 1 }],
      ['1c.*', { 0: 0x4000_0000 }],
      ['80000008.*', { 0: 0x3935 }],
      ['1f.1', { 0: 0 }],
    ];
    for (const [key, change] of contradictions) {
      expect(() => withCpuid(key, change), key).toThrow(/^TDX module fatal error/);
    }
  });
});

describe('CMRs at SYS.INIT', () => {
  const withCmrs = (cmrs: MachineDescription['cmrs'], width = 52): bigint =>
    moduleMachine({ cmrs, physicalAddressBits: width }).status(SYS_INIT);

  it('accepts ascending whole pages, empty entries among them, and addresses above the KeyID', () => {
    expect(withCmrs([])).toBe(0n);
    expect(
      withCmrs([
        { start: PAGE_4K, end: MIB },
        { start: 7, end: 7 },
        { start: MIB, end: 2 * MIB },
      ]),
    ).toBe(0n);
    // The limit is 52 bits on every CPU; only the KeyID's own bits below MAXPA are refused.
    expect(withCmrs([{ start: 2 ** 46, end: 2 ** 46 + MIB }], 46)).toBe(0n);
  });

  it.each([
    ['a start inside a page', [{ start: 0x800, end: MIB }]],
    ['an end inside a page', [{ start: 0, end: MIB + 0x800 }]],
    ['a KeyID in the start', [{ start: 2 ** 46, end: 2 ** 46 + MIB }]],
    ['a KeyID in the end', [{ start: 2 ** 46 - MIB, end: 2 ** 46 + MIB }]],
    ['an end past 52 bits', [{ start: 2 ** 52 - MIB, end: 2 ** 52 + PAGE_4K }]],
    ['a wrap', [{ start: 2 ** 64 - PAGE_4K, end: 2 ** 64 + PAGE_4K }]],
    [
      'an overlap',
      [
        { start: 0, end: 2 * MIB },
        { start: MIB, end: 3 * MIB },
      ],
    ],
    [
      'a descent',
      [
        { start: 2 * MIB, end: 3 * MIB },
        { start: 0, end: MIB },
      ],
    ],
  ])('refuses %s', (_what, cmrs) => {
    expect(withCmrs(cmrs)).toBe(STATUS.TDX_CMR_LIST_INVALID);
  });

  it('tells which CMR an SMM range overlaps', () => {
    const host = moduleMachine({
      cmrs: [
        { start: 0, end: GIB },
        { start: 2 * GIB, end: 3 * GIB },
      ],
    });
    host.machine.msrs.set(0x1f2, 0x9000_0006n);
    expect(host.status(SYS_INIT)).toBe(STATUS.TDX_SMRR_OVERLAPS_CMR | 0x0100n);
  });
});
