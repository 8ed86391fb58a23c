/** TDG.VP.VMCALL: hands the registers that RCX names to the host (module facts 9). */
import { OPERAND } from '../../../abi/operands.ts';
import { RBP, RCX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { CONFIG_FLAGS } from '../../td/features.ts';
import type { GuestLeaf } from '../guest-leaf.ts';
import { exitForVmcall } from '../td-exit.ts';

/** RAX, RCX and RSP are never handed over. */
const NEVER = 0b1_0011;

/** @internal */
export const vpVmcall: GuestLeaf = (vcpu) => {
  const { d } = vcpu.regs;
  const control = d[2 * RCX]!;
  const forbidden = vcpu.hasConfigFlag(CONFIG_FLAGS.NO_RBP_MOD) ? NEVER | (1 << RBP) : NEVER;
  if ((control & forbidden) !== 0 || d[2 * RCX + 1] !== 0) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  }
  return exitForVmcall(vcpu, control & 0xffff, control >>> 16);
};
