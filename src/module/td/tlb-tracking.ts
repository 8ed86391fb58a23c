/** TLB tracking by epochs (module facts 7): no page leaves a TD while a processor may still hold its translation. */
import { OPERAND } from '../../abi/operands.ts';
import type { Registers } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { PamtEntry } from '../pamt-block.ts';
import type { LocatedEntry } from './gpa.ts';
import { TDCS } from './layout.ts';
import { isTlbTrackingRequired } from './op-state.ts';
import { putSeptDetails } from './sept.ts';
import { isBlocked, needsTlbTracking, type SeptEntry } from './sept-entry.ts';
import type { TrustDomain } from './trust-domain.ts';

/** True when the TD may be running with a translation through `entry`. @public */
export function mayBeCached({ tdcs }: TrustDomain, entry: SeptEntry): boolean {
  return needsTlbTracking(entry) && isTlbTrackingRequired(tdcs.u32(TDCS.OP_STATE));
}

/** vCPUs that run in `epoch`, the TD's own or the one before it. @public */
export function runningIn({ tdcs }: TrustDomain, epoch: bigint): number {
  return tdcs.u16(TDCS.REFCOUNT + 2 * Number(epoch & 1n));
}

/** True when every vCPU was flushed since the epoch in which a page was blocked. @public */
export function isTlbTracked(td: TrustDomain, blockedIn: bigint): boolean {
  const previous = td.tdcs.u64(TDCS.TD_EPOCH) - 1n;
  return blockedIn === previous ? runningIn(td, previous) === 0 : blockedIn < previous;
}

/**
 * Checks that the entry which leads to `page` is blocked and tracked where that is needed. TDX_SUCCESS or the status;
 * an entry that is not blocked puts its details into RCX and RDX.
 * @public
 */
export function checkBlockedAndTracked(
  regs: Registers,
  td: TrustDomain,
  located: LocatedEntry,
  page: PamtEntry,
): bigint {
  if (!mayBeCached(td, located.entry)) return STATUS.TDX_SUCCESS;
  if (!isBlocked(located.entry)) {
    putSeptDetails(regs, located.ept, located);
    return withOperand(STATUS.TDX_GPA_RANGE_NOT_BLOCKED, OPERAND.RCX);
  }
  return isTlbTracked(td, page.bepoch)
    ? STATUS.TDX_SUCCESS
    : withOperand(STATUS.TDX_TLB_TRACKING_NOT_DONE, OPERAND.RCX);
}
