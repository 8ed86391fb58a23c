import type { LogicalProcessor } from '../machine/lp.ts';

/** IA32_INTR_PENDING: bit 0 external interrupt, 1 NMI, 2 SMI wait for the end of SEAM mode (TDX module ABI). @public */
export const INTR_PENDING_MSR = 0x9a;

/** True when a long leaf should stop for an event of the host, which polls with interrupts enabled. @internal */
export function isEventPending(lp: LogicalProcessor): boolean {
  return lp.rdmsr(INTR_PENDING_MSR) !== 0n;
}
