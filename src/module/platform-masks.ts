/** Which bits of a TD's ATTRIBUTES, XFAM and CONFIG_FLAGS this module on this CPU allows. */
import { hasFeature } from '../abi/features.ts';
import type { CpuFacts, FixedMasks } from './platform.ts';
import type { ModuleRelease } from './releases.ts';

/** DEBUG, SEPT_VE_DISABLE, PKS, PERFMON: in every release (module facts 6). */
const ATTRIBUTES_ALWAYS = (1n << 0n) | (1n << 28n) | (1n << 30n) | (1n << 63n);
const ATTRIBUTES_LASS = 1n << 27n;

/** ATTRIBUTES bits that came with a feature. */
const ATTRIBUTES_BY_FEATURE: readonly (readonly [feature: string, bit: bigint])[] = [
  ['ICSSD', 16n],
  ['TD_MIGRATION', 29n],
];

/** CONFIG_FLAGS: GPAW always. */
const CONFIG_FLAGS_ALWAYS = 1n;

/** CONFIG_FLAGS bits that came with a feature: FLEXIBLE_PENDING_VE, NO_RBP_MOD, MAXPA_VIRT, MAXGPA_VIRT. */
const CONFIG_FLAGS_BY_FEATURE: readonly (readonly [feature: string, bit: bigint])[] = [
  ['PENDING_EPT_VIOLATION_V2', 1n],
  ['NO_RBP_MOD', 2n],
  ['MAXPA_VIRT', 3n],
  ['MAXGPA_VIRT', 4n],
  ['PAGE_RELEASE', 6n],
];

/** State components a TD may have, and those it must have: x87 and SSE (module facts 3). */
const XFAM_ALLOWED = 0x6dbe7n;
const XFAM_REQUIRED = 3n;

/** @internal */
export function fixedMasks(release: ModuleRelease, cpu: CpuFacts): FixedMasks {
  const granted = (table: typeof ATTRIBUTES_BY_FEATURE): bigint =>
    table.reduce(
      (mask, [feature, bit]) => (hasFeature(release.features0, feature) ? mask | (1n << bit) : mask),
      0n,
    );
  const lass = cpu.features.lass ? ATTRIBUTES_LASS : 0n;
  return {
    attributesFixed0: ATTRIBUTES_ALWAYS | granted(ATTRIBUTES_BY_FEATURE) | lass,
    attributesFixed1: 0n,
    xfamFixed0: XFAM_ALLOWED & (BigInt(cpu.xcr0Mask) | BigInt(cpu.xssMask)),
    xfamFixed1: XFAM_REQUIRED,
    configFlagsFixed0: CONFIG_FLAGS_ALWAYS | granted(CONFIG_FLAGS_BY_FEATURE),
    configFlagsFixed1: 0n,
  };
}
