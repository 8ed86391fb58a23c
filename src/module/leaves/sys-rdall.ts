/** TDH.SYS.RDALL: global metadata as a list. In: RDX 4 KiB buffer, R8 first field id. Out: R8 next id. */
import { PAGE_4K } from '../../abi/address.ts';
import { NO_FIELD } from '../../abi/global-fields.ts';
import { OPERAND } from '../../abi/operands.ts';
import { R8, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { listGlobalFields } from '../global-metadata.ts';
import type { Leaf } from '../leaf.ts';
import { sharedBuffer, writeShared } from '../shared-buffer.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const sysRdall: Leaf = { handler: run, beforeReady: true };

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  const { q } = lp.regs;
  const start = q[R8]!;
  q[R8] = NO_FIELD;
  if (module.lps[lp.index] === undefined) return STATUS.TDX_SYS_LP_INIT_NOT_DONE;
  const buffer = sharedBuffer(module.platform!, q[RDX]!, PAGE_4K);
  if (buffer === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  const list = listGlobalFields(module, start, PAGE_4K);
  writeShared(lp, buffer, list.bytes);
  q[R8] = list.next;
  return list.status;
}
