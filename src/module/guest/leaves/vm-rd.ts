/** TDG.VM.RD: one field of the TD itself. In: RCX 0, RDX field id. Out: R8 value; version 1: RDX next id. */
import { NO_FIELD } from '../../../abi/global-fields.ts';
import { OPERAND } from '../../../abi/operands.ts';
import { R8, RCX, RDX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { answerRead } from '../../td/metadata.ts';
import { tdMetadata } from '../../td/td-metadata.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

/** @internal */
export const vmRd: GuestLeaf = ({ module, td, regs }, version) => {
  const { q } = regs;
  const requested = q[RDX]!;
  if (version > 0) q[RDX] = NO_FIELD;
  q[R8] = 0n;
  if (version > 1) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  if (q[RCX] !== 0n) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  return answerRead(regs, tdMetadata(module, td), requested, 'guest', version > 0);
};
