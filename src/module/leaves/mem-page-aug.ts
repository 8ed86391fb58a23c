/**
 * TDH.MEM.PAGE.AUG: gives a TD a page that its guest has to accept (module facts 7).
 * In: RCX guest address and level, RDX TD, R8 page.
 */
import { pfnOf } from '../../abi/address.ts';
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { LEVEL_2M, PAGE_TYPE, type PageLevel } from '../../abi/page-types.ts';
import { R8 } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { givePage, lockPage } from '../td/operands.ts';
import { checkSeptState, type EntryKind, enterPageLeaf, openEntry } from '../td/page-leaf.ts';
import { SEPT_LEVEL } from '../td/sept.ts';
import { SEPT_STATE, septEntry } from '../td/sept-entry.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memPageAug: Leaf = { handler: locking(run) };

const LEAF_ENTRY: EntryKind = { minLevel: SEPT_LEVEL.PT_4K, maxLevel: SEPT_LEVEL.PD_2M, tree: 'shared' };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const call = enterPageLeaf(module, held, regs, TDH.memPageAug);
  if (typeof call === 'bigint') return call;
  const entry = openEntry(held, regs, call, LEAF_ENTRY);
  if (typeof entry === 'bigint') return entry;
  const allowed = checkSeptState(regs, TDH.memPageAug, entry);
  if (allowed !== STATUS.TDX_SUCCESS) return allowed;
  const level = entry.level as PageLevel;
  const page = lockPage(module, held, regs, R8, 'exclusive', PAGE_TYPE.NDA, level);
  if (typeof page === 'bigint') return page;
  if (level === LEVEL_2M && !page.walk.block.is2mRangeFree(page.address)) {
    return withOperand(STATUS.TDX_PAGE_METADATA_INCORRECT, OPERAND.R8);
  }

  const { td } = call;
  const { ept, at } = entry;
  ept.writeKeepingClaim(at, septEntry(SEPT_STATE.PENDING, 0, ept.withKeyId(pfnOf(page.address))));
  td.addChildren(512 ** level);
  givePage(page, PAGE_TYPE.REG, td.address);
  page.walk.entry.bepoch = 0n;
  return STATUS.TDX_SUCCESS;
}
