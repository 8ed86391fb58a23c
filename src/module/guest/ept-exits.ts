/** EPT violations and misconfigurations of a running TD (module facts 11). */
import { STATUS } from '../../abi/status-codes.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import { fatal } from '../fatal.ts';
import { CONFIG_FLAGS, hasAny, TD_CTLS } from '../td/features.ts';
import { isGpaValid, isSharedGpa } from '../td/gpa.ts';
import { SEPT_LEVEL } from '../td/sept.ts';
import { isPendingAcceptable } from '../td/sept-entry.ts';
import { VMCS } from '../td/vmcs.ts';
import { EEQ_PENDING } from './gpa-access.ts';
import { injectPf, injectVe, VE_CATEGORY } from './injection.ts';
import type { RunningVcpu } from './running-vcpu.ts';
import { exitForEptViolation, exitToHost } from './td-exit.ts';
import type { ExitResult, VmExit } from './vm-exit.ts';
import { noteFault } from './zero-step.ts';

const QUALIFICATION = {
  WRITE: 1n << 1n,
  FETCH: 1n << 2n,
  GLA_VALID: 1n << 7n,
  NMI_UNBLOCKED_BY_IRET: 1n << 12n,
  SHADOW_STACK: 1n << 13n,
} as const;
/** #PF error code: present, write, user, reserved bit, fetch, shadow stack. */
const PFEC = { P: 1, WR: 1 << 1, US: 1 << 2, RSVD: 1 << 3, ID: 1 << 4, SS: 1 << 6 } as const;
const BLOCKING_BY_NMI = 1 << 3;
const USER = 3;

/** @internal */
export function eptViolationExit(vcpu: RunningVcpu, exit: VmExit): ExitResult {
  const { td, tdcs, vmcs } = vcpu;
  const { reason, qualification, linearAddress, physicalAddress } = exit;
  if (hasAny(qualification, QUALIFICATION.NMI_UNBLOCKED_BY_IRET)) {
    const blocking = vmcs.read32(VMCS.GUEST_INTERRUPTIBILITY);
    vmcs.writeNumber(VMCS.GUEST_INTERRUPTIBILITY, blocking | BLOCKING_BY_NMI);
  }
  const gpa = Number(physicalAddress);
  if (!isGpaValid(tdcs, gpa, false) && hasAny(qualification, QUALIFICATION.GLA_VALID)) {
    return reservedGpaBits(vcpu, exit);
  }
  if (isSharedGpa(tdcs, gpa)) return exitForEptViolation(vcpu, qualification, physicalAddress);
  const isPending = isPendingAcceptable(td.sept().walk(gpa, SEPT_LEVEL.PT_4K).entry);
  if (isPending && !vcpu.hasControl(TD_CTLS.PENDING_VE_DISABLE)) {
    injectVe(vcpu, VE_CATEGORY.PENDING, { reason, qualification, physicalAddress, linearAddress });
    return 'handled';
  }
  noteFault(vcpu, physicalAddress);
  return exitForEptViolation(vcpu, qualification, physicalAddress, isPending ? EEQ_PENDING : 0n);
}

/** A GPA beyond the width that the TD was given: to the TD, a reserved bit in its own page tables. */
function reservedGpaBits(vcpu: RunningVcpu, exit: VmExit): ExitResult {
  const { reason, qualification, linearAddress, physicalAddress } = exit;
  if (vcpu.hasConfigFlag(CONFIG_FLAGS.MAXGPA_VIRT)) {
    const cause = { reason, qualification, physicalAddress, linearAddress };
    injectVe(vcpu, VE_CATEGORY.RESERVED_GPA_BITS, cause);
    return 'handled';
  }
  let code = PFEC.P | PFEC.RSVD;
  if (hasAny(qualification, QUALIFICATION.WRITE)) code |= PFEC.WR;
  if (hasAny(qualification, QUALIFICATION.FETCH)) code |= PFEC.ID;
  if (hasAny(qualification, QUALIFICATION.SHADOW_STACK)) code |= PFEC.SS;
  if (vcpu.cpl === USER) code |= PFEC.US;
  if (injectPf(vcpu, linearAddress, code)) return 'handled';
  return exitToHost(vcpu, STATUS.TDX_NON_RECOVERABLE_VCPU, { reason: EXIT.TRIPLE_FAULT });
}

/** @internal */
export function eptMisconfigurationExit(vcpu: RunningVcpu, { reason, physicalAddress }: VmExit): ExitResult {
  if (!isSharedGpa(vcpu.tdcs, Number(physicalAddress))) fatal('a secure EPT entry is misconfigured');
  return exitToHost(vcpu, STATUS.TDX_SUCCESS, { reason, gpa: physicalAddress & ~0xfffn });
}
