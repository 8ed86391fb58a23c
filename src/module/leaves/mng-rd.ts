/** TDH.MNG.RD: one field of a TD. In: RCX TDR, RDX field id. Out: R8 value; version 1: RDX next id. */

import { NO_FIELD } from '../../abi/global-fields.ts';
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { R8, RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { ATTRIBUTES, hasAny } from '../td/features.ts';
import { type Held, locking } from '../td/held.ts';
import { TDCS } from '../td/layout.ts';
import { answerRead } from '../td/metadata.ts';
import { enterOpState, lockTdr } from '../td/operands.ts';
import { tdMetadata } from '../td/td-metadata.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const mngRd: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held, version: number): bigint {
  const { regs } = lp;
  const requested = regs.q[RDX]!;
  if (version > 0) regs.q[RDX] = NO_FIELD;
  regs.q[R8] = 0n;
  if (version > 1) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  const td = lockTdr(module, held, regs, RCX, 'shared');
  if (typeof td === 'bigint') return td;
  const entered = enterOpState(held, td, TDH.mngRd, 'shared');
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const access = hasAny(td.tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.DEBUG) ? 'debug' : 'host';
  return answerRead(regs, tdMetadata(module, td), requested, access, version > 0);
}
