/** TDG.VM.WR: writes one field of the TD itself. In: RCX 0, RDX field id, R8 value, R9 bits to write. Out: R8 old value. */
import { OPERAND } from '../../../abi/operands.ts';
import { R8, R9, RCX, RDX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { answerWrite } from '../../td/metadata.ts';
import { tdMetadata } from '../../td/td-metadata.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

/** @internal */
export const vmWr: GuestLeaf = ({ module, td, regs }) => {
  const { q } = regs;
  const value = q[R8]!;
  q[R8] = 0n;
  if (q[RCX] !== 0n) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  return answerWrite(regs, tdMetadata(module, td), q[RDX]!, 'guest', value, q[R9]!);
};
