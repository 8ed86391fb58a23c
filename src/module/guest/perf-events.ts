/** IA32_PERFEVTSELx of a profiled TD whose creator filters events (docs/rules/guest.md). */
import { fatal } from '../fatal.ts';
import { ATTRIBUTES, hasAny } from '../td/features.ts';
import { TDCS, TDVPS } from '../td/layout.ts';
import type { Refusal } from './injection.ts';
import type { RunningVcpu } from './running-vcpu.ts';

const FIRST = 0x186;
const COUNTERS = 8;
/** Event and unit mask in bits 15:0; enable. */
const EVENT = 0xffffn;
const ENABLE = 1n << 22n;
/** The module's own bit in the saved value: the event is filtered out, and the counter stays off. */
const FORBIDDEN = 1n << 63n;

/** Addresses of IA32_PERFEVTSEL0 to 7. @internal */
export const PERF_EVENT_SELECTS: readonly number[] = Array.from({ length: COUNTERS }, (_, i) => FIRST + i);

/** @internal */
export function readEventSelect(vcpu: RunningVcpu, msr: number): bigint | Refusal {
  if (!vcpu.hasAttribute(ATTRIBUTES.PERFMON)) return 'gp';
  checkFiltered(vcpu, msr);
  return vcpu.tdvps.u64(savedAt(msr)) & ~FORBIDDEN;
}

/** @internal */
export function writeEventSelect(vcpu: RunningVcpu, value: bigint, msr: number): 'done' | Refusal {
  if (!vcpu.hasAttribute(ATTRIBUTES.PERFMON)) return 'gp';
  checkFiltered(vcpu, msr);
  const { tdcs, tdvps } = vcpu;
  const isForbidden = hasAny(value, ENABLE) && !isAllowed(vcpu, Number(value & EVENT));
  if (isForbidden) tdcs.setU64(TDCS.FILTERED_EVENTS_COUNT, tdcs.u64(TDCS.FILTERED_EVENTS_COUNT) + 1n);
  tdvps.setU64(savedAt(msr), isForbidden ? value | FORBIDDEN : value);
  return 'done';
}

function savedAt(msr: number): number {
  return TDVPS.IA32_PMC_GP_CFG + 8 * (msr - FIRST);
}

/** Without filters the TD accesses the selectors directly. */
function checkFiltered({ tdcs }: RunningVcpu, msr: number): void {
  if (tdcs.u16(TDCS.EVENT_FILTERS_NUM) === 0)
    fatal(`VM exit for MSR 0x${msr.toString(16)} without event filters`);
}

function isAllowed({ tdcs }: RunningVcpu, event: number): boolean {
  const filters = tdcs.u16(TDCS.EVENT_FILTERS_NUM);
  for (let i = 0; i < filters; i++) if (tdcs.u16(TDCS.EVENT_FILTERS + 2 * i) === event) return true;
  return false;
}
