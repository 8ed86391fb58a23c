/** TDH.MNG.WR: writes one field of a TD. In: RCX TDR, RDX field id, R8 value, R9 bits to write. Out: R8 old value. */
import { TDH } from '../../abi/leaves.ts';
import { R8, R9, RCX, RDX } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { ATTRIBUTES, hasAny } from '../td/features.ts';
import { type Held, locking } from '../td/held.ts';
import { TDCS } from '../td/layout.ts';
import { answerWrite } from '../td/metadata.ts';
import { enterOpState, lockTdr } from '../td/operands.ts';
import { tdMetadata } from '../td/td-metadata.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const mngWr: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const value = regs.q[R8]!;
  regs.q[R8] = 0n;
  const td = lockTdr(module, held, regs, RCX, 'shared');
  if (typeof td === 'bigint') return td;
  const entered = enterOpState(held, td, TDH.mngWr, 'shared');
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const access = hasAny(td.tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.DEBUG) ? 'debug' : 'host';
  return answerWrite(regs, tdMetadata(module, td), regs.q[RDX]!, access, value, regs.q[R9]!);
}
