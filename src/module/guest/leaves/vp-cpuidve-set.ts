/** TDG.VP.CPUIDVE.SET: makes every CPUID of the supervisor (RCX bit 0) or of user code (bit 1) cause a #VE. */
import { OPERAND } from '../../../abi/operands.ts';
import { RCX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { TD_CTLS } from '../../td/features.ts';
import { TDVPS } from '../../td/layout.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

const SUPERVISOR = 1;
const USER = 2;

/** @internal */
export const vpCpuidveSet: GuestLeaf = (vcpu) => {
  const { tdvps, regs } = vcpu;
  const control = regs.d[2 * RCX]!;
  const unknown = (control & ~(SUPERVISOR | USER)) !== 0 || regs.d[2 * RCX + 1] !== 0;
  if (unknown) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const supervisor = (control & SUPERVISOR) !== 0;
  const user = (control & USER) !== 0;
  const changes =
    tdvps.flag(TDVPS.CPUID_SUPERVISOR_VE) !== supervisor || tdvps.flag(TDVPS.CPUID_USER_VE) !== user;
  if (vcpu.hasControl(TD_CTLS.LOCK) && changes) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  }
  tdvps.setFlag(TDVPS.CPUID_SUPERVISOR_VE, supervisor);
  tdvps.setFlag(TDVPS.CPUID_USER_VE, user);
  return STATUS.TDX_SUCCESS;
};
