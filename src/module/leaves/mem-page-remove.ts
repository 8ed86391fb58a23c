/**
 * TDH.MEM.PAGE.REMOVE: takes a page from a TD (module facts 7).
 * In: RCX guest address and level, RDX TD. Out: RCX the page, bit 62 when its page pair is no longer used.
 */
import { TDH } from '../../abi/leaves.ts';
import { RCX } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { aliases } from '../td/l2-sept.ts';
import { lockMappedPage, takeBack } from '../td/owned-page.ts';
import { checkSeptState, type EntryKind, enterPageLeaf, openEntry } from '../td/page-leaf.ts';
import { SEPT_LEVEL } from '../td/sept.ts';
import { withoutAcceptCounter } from '../td/sept-blocking.ts';
import { FREE_ENTRY } from '../td/sept-entry.ts';
import { checkBlockedAndTracked } from '../td/tlb-tracking.ts';
import { ZEROES } from '../td/trust-domain.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memPageRemove: Leaf = { handler: locking(run) };

const LEAF_ENTRY: EntryKind = { minLevel: SEPT_LEVEL.PT_4K, maxLevel: SEPT_LEVEL.PDPT_1G, tree: 'shared' };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const call = enterPageLeaf(module, held, regs, TDH.memPageRemove);
  if (typeof call === 'bigint') return call;
  const opened = openEntry(held, regs, call, LEAF_ENTRY);
  if (typeof opened === 'bigint') return opened;
  const allowed = checkSeptState(regs, TDH.memPageRemove, opened);
  if (allowed !== STATUS.TDX_SUCCESS) return allowed;
  const located = { ...opened, entry: withoutAcceptCounter(opened.entry, opened.level) };
  const page = lockMappedPage(module, held, located);
  if (typeof page === 'bigint') return page;
  const { td } = call;
  const tracked = checkBlockedAndTracked(regs, td, located, page.entry);
  if (tracked !== STATUS.TDX_SUCCESS) return tracked;

  for (const alias of aliases(td, located)) alias.ept.write(alias.at, ZEROES);
  located.ept.writeKeepingClaim(located.at, FREE_ENTRY);
  regs.q[RCX] = takeBack(td, page);
  return STATUS.TDX_SUCCESS;
}
