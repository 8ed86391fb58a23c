/**
 * TDG.VP.ENTER: enters an L2 VM. In: RCX VM and flags, RDX GPA of its state. L2 VMs are not run: a call that passes the
 * checks is answered as one of a leaf that is not there (docs/fidelity.md).
 */
import { OPERAND } from '../../../abi/operands.ts';
import { RCX, RDX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { gpaFrom, isGpaValid } from '../../td/gpa.ts';
import { NULL_PA, TDCS, TDVPS } from '../../td/layout.ts';
import { VMCS } from '../../td/vmcs.ts';
import type { GuestLeaf } from '../guest-leaf.ts';
import type { RunningVcpu } from '../running-vcpu.ts';
import { isInterruptRequested } from '../vcpu-state-details.ts';

const STATE_ALIGN = 256;
/** RCX: how to invalidate in bits 1:0, the VM in bits 53:52. */
const INVALIDATION = 0b11n;
const VM_SHIFT = 52n;
const VM_MASK = 0b11n;

/** The VM that bits 53:52 of RCX name, or undefined when it is none of the TD's L2 VMs or RCX has bits outside `flags`. @internal */
export function l2VmOperand({ regs, tdcs }: RunningVcpu, flags: bigint): number | undefined {
  const operand = regs.q[RCX]!;
  const vm = Number((operand >> VM_SHIFT) & VM_MASK);
  if ((operand & ~(flags | (VM_MASK << VM_SHIFT))) !== 0n) return undefined;
  return vm === 0 || vm > tdcs.u16(TDCS.NUM_L2_VMS) ? undefined : vm;
}

/** @internal */
export const vpEnter: GuestLeaf = (vcpu) => {
  const { regs, tdcs, tdvps, vmcs } = vcpu;
  const state = gpaFrom(regs, RDX);
  if (state === undefined || state % STATE_ALIGN !== 0 || !isGpaValid(tdcs, state, true)) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  }
  const vm = l2VmOperand(vcpu, INVALIDATION);
  if (vm === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  if (tdvps.u64(TDVPS.L2_VAPIC_GPA + 8 * vm) === NULL_PA) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.L2_VAPIC_GPA);
  }
  if (isInterruptRequested(tdvps, vmcs.read32(VMCS.GUEST_INTERRUPT_STATUS))) {
    return STATUS.TDX_PENDING_INTERRUPT;
  }
  return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
};
