/** Interrupts for TDs: posted ones only, since the host does not see the virtual APIC (Linux host rules 2.5). */
import type { LogicalProcessor } from '../../../machine/lp.ts';
import type { TdxVcpu } from './tdx-vcpu.ts';

/** Vector that tells a processor to look at the descriptor of the vCPU it runs. @internal */
export const POSTED_INTERRUPT_VECTOR = 0xf2;

/** Bytes of a descriptor. @internal */
export const POSTED_INTERRUPT_BYTES = 64;
/** Descriptor (Intel SDM volume 3, posted-interrupt processing): a bit per vector, then "outstanding notification". */
const PIR_BYTES = 32;
const ON = 1;

/** Posts `vector` (16 to 255) and makes the vCPU see it. @internal */
export function postInterrupt(
  { vcpu, postedInterrupts, haltedWithoutInterrupts }: TdxVcpu,
  lp: LogicalProcessor,
  vector: number,
): void {
  const descriptor = lp.load(postedInterrupts, PIR_BYTES + 1);
  descriptor[vector >>> 3]! |= 1 << (vector & 7);
  descriptor[PIR_BYTES]! |= ON;
  lp.store(postedInterrupts, descriptor);
  vcpu.requestExit();
  if (!haltedWithoutInterrupts) vcpu.wake();
}

/** True while interrupts wait to be delivered. @internal */
export function hasPostedInterrupt({ postedInterrupts }: TdxVcpu, lp: LogicalProcessor): boolean {
  return postedInterrupts !== 0 && lp.load(postedInterrupts, PIR_BYTES).some((byte) => byte !== 0);
}
