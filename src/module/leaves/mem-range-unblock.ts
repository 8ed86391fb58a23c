/**
 * TDH.MEM.RANGE.UNBLOCK: puts a blocked guest range back to use (module facts 7).
 * In: RCX guest address and level, RDX TD.
 */
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { l2Unblocked } from '../td/l2-blocking.ts';
import { aliases } from '../td/l2-sept.ts';
import { mappedPage } from '../td/owned-page.ts';
import { checkSeptState, type EntryKind, enterPageLeaf, openEntry } from '../td/page-leaf.ts';
import { SEPT_LEVEL } from '../td/sept.ts';
import { unblocked } from '../td/sept-blocking.ts';
import { isPending } from '../td/sept-entry.ts';
import { isTlbTracked, mayBeCached } from '../td/tlb-tracking.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memRangeUnblock: Leaf = { handler: locking(run) };

const ANY_ENTRY: EntryKind = { minLevel: SEPT_LEVEL.PT_4K, tree: 'exclusive' };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const call = enterPageLeaf(module, held, regs, TDH.memRangeUnblock);
  if (typeof call === 'bigint') return call;
  const located = openEntry(held, regs, call, ANY_ENTRY);
  if (typeof located === 'bigint') return located;
  const allowed = checkSeptState(regs, TDH.memRangeUnblock, located);
  if (allowed !== STATUS.TDX_SUCCESS) return allowed;
  const { td } = call;
  const { ept, at, entry } = located;
  if (mayBeCached(td, entry) && !isTlbTracked(td, mappedPage(module, located).entry.bepoch)) {
    return withOperand(STATUS.TDX_TLB_TRACKING_NOT_DONE, OPERAND.RCX);
  }

  if (!isPending(entry)) {
    for (const alias of aliases(td, located)) alias.ept.write(alias.at, l2Unblocked(alias.entry));
  }
  ept.writeKeepingClaim(at, unblocked(entry));
  return STATUS.TDX_SUCCESS;
}
