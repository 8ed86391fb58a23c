/** TDG.VP.INVEPT: drops cached translations of L2 VMs, which the model does not cache. In: RCX the VMs, one bit each. */
import { OPERAND } from '../../../abi/operands.ts';
import { RCX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { TDCS } from '../../td/layout.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

/** @internal */
export const vpInvept: GuestLeaf = ({ regs, tdcs }) => {
  const vms = regs.q[RCX]!;
  const allowed = (2n << BigInt(tdcs.u16(TDCS.NUM_L2_VMS))) - 2n;
  return (vms & ~allowed) === 0n ? STATUS.TDX_SUCCESS : withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
};
