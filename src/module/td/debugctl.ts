/** IA32_DEBUGCTL of a TD. */
import type { LogicalProcessor } from '../../machine/lp.ts';
import { MODULE_MSR } from '../platform-msrs.ts';

/** Bit 13: interrupts of uncore performance counters, which stay the host's. */
const UNCORE_PMI = 1n << 13n;

/** A TD's value with the host's own choice of uncore interrupts. @internal */
export function withHostUncorePmi(lp: LogicalProcessor, value: bigint): bigint {
  return (value & ~UNCORE_PMI) | (lp.rdmsr(MODULE_MSR.DEBUGCTL) & UNCORE_PMI);
}
