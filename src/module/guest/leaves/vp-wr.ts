/** TDG.VP.WR: writes one field of the vCPU itself. In: RCX 0, RDX field id, R8 value, R9 bits to write. Out: R8 old value. */
import { OPERAND } from '../../../abi/operands.ts';
import { R8, R9, RCX, RDX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { answerWrite } from '../../td/metadata.ts';
import { vcpuMetadata } from '../../td/vcpu-metadata.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

/** @internal */
export const vpWr: GuestLeaf = ({ module, td, tdvps, lp, regs }) => {
  const { q } = regs;
  const value = q[R8]!;
  q[R8] = 0n;
  if (q[RCX] !== 0n) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const space = vcpuMetadata({ module, td, tdvps, lp, access: 'guest' });
  return answerWrite(regs, space, q[RDX]!, 'guest', value, q[R9]!);
};
