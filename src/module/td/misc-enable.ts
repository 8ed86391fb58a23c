/** IA32_MISC_ENABLE as a vCPU sees it, in its TDVPS. */
import type { ControlStructure } from './control-structure.ts';
import { CPUID_FLAG, TDVPS } from './layout.ts';
import type { TrustDomain } from './trust-domain.ts';

/** Bits that a write must leave zero, and those that a write leaves as they are. */
const RESERVED = 0xffff_ffff_ff3a_e776n;
const READ_ONLY = (1n << 7n) | (1n << 11n) | (1n << 12n);
const EST = 1n << 16n;
const ENABLE_MONITOR = 1n << 18n;
const LIMIT_CPUID_MAXVAL = 1n << 22n;
const TPR_MESSAGE_DISABLE = 1n << 23n;

/** Stores `value`. What the vCPU lacks is `reserved`; what the module does not emulate is `unsupported`. @public */
export function storeMiscEnable(
  td: TrustDomain,
  tdvps: ControlStructure,
  value: bigint,
): 'reserved' | 'unsupported' | undefined {
  if ((value & RESERVED) !== 0n) return 'reserved';
  const old = tdvps.u64(TDVPS.IA32_MISC_ENABLE);
  const merged = (value & ~READ_ONLY) | (old & READ_ONLY);
  if ((merged & EST) !== 0n && !td.cpuidFlag(CPUID_FLAG.EST)) return 'reserved';
  if (((merged ^ old) & ENABLE_MONITOR) !== 0n || (merged & LIMIT_CPUID_MAXVAL) !== 0n) return 'unsupported';
  if ((merged & TPR_MESSAGE_DISABLE) !== 0n && !td.cpuidFlag(CPUID_FLAG.XTPR_UPDATE)) return 'reserved';
  tdvps.setU64(TDVPS.IA32_MISC_ENABLE, merged);
  return undefined;
}
