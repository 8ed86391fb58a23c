/**
 * TDH.PHYMEM.PAMT.ADD: lends two free pages to hold the 4 KiB entries of a 2 MiB range.
 * In: RCX the range and its level, RDX and R8 the pages.
 */
import { alignDown, PAGE_2M } from '../../abi/address.ts';
import { OPERAND } from '../../abi/operands.ts';
import { LEVEL_2M, PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, RDX, type Registers } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { rangeOperand } from '../page-pair.ts';
import type { PamtBlock } from '../pamt-block.ts';
import { walkPamt } from '../pamt-walk.ts';
import { type Held, locking } from '../td/held.ts';
import { plainHpa } from '../td/operands.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const phymemPamtAdd: Leaf = { handler: locking(run) };

/** A page offered to hold metadata. */
interface Donor {
  readonly address: number;
  readonly block: PamtBlock;
  readonly operand: number;
}

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const range = rangeOperand(module, lp);
  if (typeof range === 'bigint') return range;
  const first = donor(module, lp.regs, RDX);
  if (typeof first === 'bigint') return first;
  const second = donor(module, lp.regs, R8);
  if (typeof second === 'bigint') return second;
  return addPair(module, held, range, first, second);
}

function donor(module: TdxModule, regs: Registers, operand: number): Donor | bigint {
  const address = plainHpa(module.platform!, regs.d[2 * operand]!, regs.d[2 * operand + 1]!);
  if (address === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, operand);
  const block = module.pamt.block(address);
  return block === undefined
    ? withOperand(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, operand)
    : { address, block, operand };
}

function addPair(module: TdxModule, held: Held, range: number, first: Donor, second: Donor): bigint {
  const walk = module.pamt.walk(range, 'exclusive', LEVEL_2M);
  if (walk === undefined) return withOperand(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, OPERAND.RCX);
  if (typeof walk === 'bigint') return withOperand(walk, OPERAND.RCX);
  held.add(walk);
  if (walk.level !== LEVEL_2M || walk.entry.type !== PAGE_TYPE.NDA) {
    return withOperand(STATUS.TDX_HPA_RANGE_NOT_FREE, OPERAND.RCX);
  }
  for (const page of [first, second]) {
    // A page of the range itself has no entry of its own yet.
    if (alignDown(page.address, PAGE_2M) === range) continue;
    const free = walkPamt(page.block, page.address, 'shared');
    if (typeof free === 'bigint') return withOperand(free, page.operand);
    held.add(free);
    if (free.entry.type !== PAGE_TYPE.NDA) return withOperand(STATUS.TDX_PAGE_NOT_FREE, page.operand);
  }
  const taken = module.pamt.lendPair(first.address, second.address);
  if (taken !== undefined) return withOperand(STATUS.TDX_PAGE_NOT_FREE, [first, second][taken]!.operand);
  walk.block.clear4k(range);
  walk.entry.setPagePair(first.address, second.address, 0);
  return STATUS.TDX_SUCCESS;
}
