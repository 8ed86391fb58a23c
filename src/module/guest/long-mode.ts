import { VMCS } from '../td/vmcs.ts';
import type { RunningVcpu } from './running-vcpu.ts';

const EFER_LMA = 1 << 10;
const CS_LONG = 1 << 13;

/** True when the guest executes 64-bit code. @public */
export function isIn64BitMode({ vmcs }: RunningVcpu): boolean {
  const longMode = (vmcs.read32(VMCS.GUEST_EFER) & EFER_LMA) !== 0;
  return longMode && (vmcs.read32(VMCS.GUEST_CS_AR) & CS_LONG) !== 0;
}
