/**
 * TDH.SYS.TDMR.INIT: the next step of a TDMR's metadata. In: RCX base of the TDMR. Out: RDX first address that is not
 * usable yet, a multiple of 1 GiB.
 */
import { PAGE_1G } from '../../abi/address.ts';
import { OPERAND } from '../../abi/operands.ts';
import { RCX, RDX, setRegNumber } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { plainHpa } from '../td/operands.ts';
import { tdmrAt } from '../tdmr-table.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const sysTdmrInit: Leaf = { handler: run };

const INVALID_RCX = withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
const BUSY_RCX = withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.RCX);

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  const { regs } = lp;
  setRegNumber(regs, RDX, 0);
  const base = plainHpa(module.platform!, regs.d[2 * RCX]!, regs.d[2 * RCX + 1]!, PAGE_1G);
  if (base === undefined) return INVALID_RCX;
  const tdmr = tdmrAt(module.pamt.tdmrs, base);
  if (tdmr === undefined || tdmr.base !== base) return INVALID_RCX;
  if (!tdmr.lock.tryLock()) return BUSY_RCX;
  try {
    if (tdmr.nextToInit >= tdmr.end) return STATUS.TDX_TDMR_ALREADY_INITIALIZED;
    module.pamt.initialiseStep(tdmr);
    setRegNumber(regs, RDX, tdmr.usableEnd);
    return STATUS.TDX_SUCCESS;
  } finally {
    tdmr.lock.release();
  }
}
