/**
 * TDH.PHYMEM.PAMT.REMOVE: gives back the two pages that hold the 4 KiB entries of an unused 2 MiB range.
 * In: RCX the range and its level. Out: RDX and R8 the pages.
 */
import { OPERAND } from '../../abi/operands.ts';
import { LEVEL_2M, PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, RDX, type Registers, setRegNumber } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { rangeOperand } from '../page-pair.ts';
import type { PamtWalk } from '../pamt-walk.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const phymemPamtRemove: Leaf = { handler: run };

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  const range = rangeOperand(module, lp);
  if (typeof range === 'bigint') return range;
  const walk = module.pamt.walk(range, 'exclusive', LEVEL_2M);
  if (walk === undefined) return withOperand(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, OPERAND.RCX);
  if (typeof walk === 'bigint') return withOperand(walk, OPERAND.RCX);
  try {
    return removePair(module, lp.regs, walk, range);
  } finally {
    walk.release();
  }
}

function removePair(module: TdxModule, regs: Registers, walk: PamtWalk, range: number): bigint {
  const { entry, block, level } = walk;
  if (level !== LEVEL_2M || entry.type !== PAGE_TYPE.PAMT) {
    return withOperand(STATUS.TDX_NO_PAMT_PAGE_PAIR, OPERAND.RCX);
  }
  const busyHalf = block.usedHalf(range);
  if (busyHalf !== undefined) return withOperand(STATUS.TDX_PAMT_PAGE_NOT_EMPTY, busyHalf);
  const [first, second] = entry.pagePair;
  for (const page of [first, second]) module.pamt.block(page)!.setLent(page, false);
  setRegNumber(regs, RDX, first);
  setRegNumber(regs, R8, second);
  block.clear4k(range);
  entry.type = PAGE_TYPE.NDA;
  return STATUS.TDX_SUCCESS;
}
