/** What the module makes of the CPUID leaves it sampled. */
import { CPUID_POLICIES, type CpuidQuad } from '../abi/cpuid-policy.ts';
import { fatal } from './fatal.ts';
import { type CpuFacts, type CpuFeatures, cpuidKey } from './platform.ts';
import type { TopologyScan } from './platform-topology.ts';

/** Positions in a CPUID result. @internal */
export const EAX = 0;
/** @internal */
export const EBX = 1;
/** @internal */
export const ECX = 2;
/** @internal */
export const EDX = 3;

/** Leaves with a rule of their own. @internal */
export const CPUID_LEAF = {
  VENDOR: 0x0,
  VERSION: 0x1,
  CACHE: 0x4,
  THERMAL: 0x6,
  FEATURES: 0x7,
  PERFMON: 0xa,
  XSAVE: 0xd,
  TSC: 0x15,
  LBR: 0x1c,
  TOPOLOGY: 0x1f,
  PERFMON_EXT: 0x23,
  FIRST_EXTENDED: 0x8000_0000,
  ADDRESS_SIZE: 0x8000_0008,
} as const;

/** Sampled leaves by `cpuidKey`. @internal */
export type Values = ReadonlyMap<number, CpuidQuad>;

/** State components the module knows: user state in XCR0, supervisor state in IA32_XSS. */
const XCR0_KNOWN = 0x0006_02ff;
const XSS_KNOWN = 0x0001_fd00;

/** Lowest TSC frequency in Hz at which the scaling of a TD's TSC cannot overflow. */
const MIN_TSC_HZ = 0x2540c;

/** Where each named capability is enumerated. */
const FEATURE_BITS: Readonly<
  Record<keyof CpuFeatures, readonly [leaf: number, subleaf: number, register: number, bit: number]>
> = {
  hle: [CPUID_LEAF.FEATURES, 0, EBX, 4],
  rtm: [CPUID_LEAF.FEATURES, 0, EBX, 11],
  waitpkg: [CPUID_LEAF.FEATURES, 0, ECX, 5],
  la57: [CPUID_LEAF.FEATURES, 0, ECX, 16],
  lass: [CPUID_LEAF.FEATURES, 1, EAX, 6],
  perfmonExtLeaf: [CPUID_LEAF.FEATURES, 1, EAX, 8],
  lam: [CPUID_LEAF.FEATURES, 1, EAX, 26],
  ddpd: [CPUID_LEAF.FEATURES, 2, EDX, 3],
  xfd: [CPUID_LEAF.XSAVE, 1, EAX, 4],
};

/** The facts; every leaf of the policy table is in `cpuid`. @internal */
export function summarise(cpuid: Values, lastExtendedLeaf: number, topology: TopologyScan): CpuFacts {
  const features = Object.fromEntries(
    Object.keys(FEATURE_BITS).map((name) => [name, cpuFeature(cpuid, name as keyof CpuFeatures)]),
  ) as Record<keyof CpuFeatures, boolean>;
  return {
    cpuid,
    lastExtendedLeaf,
    features,
    maxPa: cpuid.get(cpuidKey(CPUID_LEAF.ADDRESS_SIZE))![EAX] & 0xff,
    xcr0Mask: xcr0Mask(cpuid),
    xssMask: xssMask(cpuid),
    xfdFaultingMask: features.xfd ? xfdFaultingMask(cpuid) : 0,
    fixedCounters: fixedCounters(cpuid.get(cpuidKey(CPUID_LEAF.PERFMON))!),
    ...tscFacts(cpuid.get(cpuidKey(CPUID_LEAF.TSC))!),
    maxLbrDepth: maxLbrDepth(cpuid.get(cpuidKey(CPUID_LEAF.LBR))!),
    x2apic: topology.layout,
  };
}

function tscFacts([denominator, numerator, crystalHz]: CpuidQuad): { crystalHz: number; tscHz: number } {
  if (denominator === 0) fatal('CPUID(0x15) has no denominator of the TSC ratio');
  const tscHz = Number((BigInt(crystalHz) * BigInt(numerator)) / BigInt(denominator));
  if (tscHz < MIN_TSC_HZ) fatal(`the TSC runs at ${tscHz} Hz`);
  return { crystalHz, tscHz };
}

/** EAX[7:0] has bit n set when a depth of 8(n+1) is supported. */
function maxLbrDepth(lbr: CpuidQuad): number {
  const depths = lbr[EAX] & 0xff;
  if (depths === 0) fatal('CPUID(0x1C) has no depth of the last-branch record');
  return 8 * (32 - Math.clz32(depths));
}

/** XCR0 bits that the CPU has and the module knows. @internal */
export function xcr0Mask(values: Values): number {
  return (values.get(cpuidKey(CPUID_LEAF.XSAVE, 0))![EAX] & XCR0_KNOWN) >>> 0;
}

/** IA32_XSS bits that the CPU has and the module knows. @internal */
export function xssMask(values: Values): number {
  return (values.get(cpuidKey(CPUID_LEAF.XSAVE, 1))![ECX] & XSS_KNOWN) >>> 0;
}

function xfdFaultingMask(values: Values): number {
  let mask = 0;
  for (const { leaf, subleaf = 0 } of CPUID_POLICIES) {
    if (leaf !== CPUID_LEAF.XSAVE || subleaf < 2) continue;
    if ((values.get(cpuidKey(leaf, subleaf))![ECX] & 0b100) !== 0) mask |= 1 << subleaf;
  }
  return mask;
}

/** Whether the CPU has a capability; false before its leaf is sampled. @internal */
export function cpuFeature(values: Values, name: keyof CpuFeatures): boolean {
  const [leaf, subleaf, register, bit] = FEATURE_BITS[name];
  const value = values.get(cpuidKey(leaf, subleaf));
  return value !== undefined && ((value[register]! >>> bit) & 1) === 1;
}

/** Bitmap of fixed counters: i exists when it is below EDX[4:0] or ECX[i] is set (Intel SDM volume 3). @internal */
export function fixedCounters(perfmon: CpuidQuad): number {
  return ((2 ** (perfmon[EDX] & 0x1f) - 1) | perfmon[ECX]) >>> 0;
}
