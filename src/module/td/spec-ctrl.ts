/** IA32_SPEC_CTRL of a TD that runs on a CPU with a control the TD does not know of. */
import type { PlatformSnapshot } from '../platform.ts';
import { CPUID_FLAG } from './layout.ts';
import type { TrustDomain } from './trust-domain.ts';

/** Bit 8: data dependent prefetcher disabled in user mode. */
const DDPD_U = 1n << 8n;

/** The value to run with where the TD wants `value`: a TD that lacks the prefetcher control runs without prefetcher. @internal */
export function realSpecCtrl(platform: PlatformSnapshot, td: TrustDomain, value: bigint): bigint {
  if (platform.earlyStepping) return value;
  if (!platform.features.ddpd) return value & ~DDPD_U;
  return td.cpuidFlag(CPUID_FLAG.DDPD) ? value : value | DDPD_U;
}

/** What the TD sees of the value it runs with. @internal */
export function virtualSpecCtrl(platform: PlatformSnapshot, td: TrustDomain, value: bigint): bigint {
  return isDdpdHidden(platform, td) ? value & ~DDPD_U : value;
}

/** True when the CPU has the prefetcher control and the TD does not. @internal */
export function isDdpdHidden(platform: PlatformSnapshot, td: TrustDomain): boolean {
  return !platform.earlyStepping && platform.features.ddpd && !td.cpuidFlag(CPUID_FLAG.DDPD);
}
