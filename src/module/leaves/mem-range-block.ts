/**
 * TDH.MEM.RANGE.BLOCK: takes a guest range out of use, so that its translations can be flushed (module facts 7).
 * In: RCX guest address and level, RDX TD.
 */
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { l2Blocked } from '../td/l2-blocking.ts';
import { aliases } from '../td/l2-sept.ts';
import { TDCS } from '../td/layout.ts';
import { mappedPage } from '../td/owned-page.ts';
import { type EntryKind, enterPageLeaf, openEntry, septStateIncorrect } from '../td/page-leaf.ts';
import { putSeptDetails, SEPT_LEVEL } from '../td/sept.ts';
import { blocked } from '../td/sept-blocking.ts';
import { isBlocked, isBlockedForWriting, isSeptStateAllowed } from '../td/sept-entry.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memRangeBlock: Leaf = { handler: locking(run) };

const ANY_ENTRY: EntryKind = { minLevel: SEPT_LEVEL.PT_4K, tree: 'exclusive' };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const call = enterPageLeaf(module, held, regs, TDH.memRangeBlock);
  if (typeof call === 'bigint') return call;
  const located = openEntry(held, regs, call, ANY_ENTRY);
  if (typeof located === 'bigint') return located;
  const { ept, at, entry, level } = located;
  if (!isSeptStateAllowed(TDH.memRangeBlock, entry)) {
    if (!isBlocked(entry)) return septStateIncorrect(regs, located);
    putSeptDetails(regs, ept, located);
    return withOperand(STATUS.TDX_GPA_RANGE_ALREADY_BLOCKED, OPERAND.RCX);
  }

  const { td } = call;
  ept.writeKeepingClaim(at, blocked(entry, level));
  for (const alias of aliases(td, located)) {
    alias.ept.write(alias.at, l2Blocked(alias.entry, isBlockedForWriting(entry)));
  }
  mappedPage(module, located).entry.bepoch = td.tdcs.u64(TDCS.TD_EPOCH);
  return STATUS.TDX_SUCCESS;
}
