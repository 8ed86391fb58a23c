/**
 * TDH.MEM.PAGE.RELOCATE: moves a TD's 4 KiB page to another physical page and unblocks it (module facts 7).
 * In: RCX guest address and level, RDX TD, R8 new page. Out: RCX the old page, bit 62 when its page pair is no longer
 * used.
 */
import { pfnOf } from '../../abi/address.ts';
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, RCX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { l2Unblocked } from '../td/l2-blocking.ts';
import { aliases } from '../td/l2-sept.ts';
import { givePage, lockPage } from '../td/operands.ts';
import { lockMappedPage, replacePage } from '../td/owned-page.ts';
import { checkSeptState, type EntryKind, enterPageLeaf, openEntry } from '../td/page-leaf.ts';
import { SEPT_LEVEL } from '../td/sept.ts';
import { unblocked } from '../td/sept-blocking.ts';
import { isPending, withPfn } from '../td/sept-entry.ts';
import { checkBlockedAndTracked } from '../td/tlb-tracking.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memPageRelocate: Leaf = { handler: locking(run) };

/** Bits of a physical address; the ones above do not make R8 another page. */
const PA_BITS = 52;
const LEAF_4K: EntryKind = { minLevel: SEPT_LEVEL.PT_4K, maxLevel: SEPT_LEVEL.PT_4K, tree: 'shared' };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const call = enterPageLeaf(module, held, regs, TDH.memPageRelocate);
  if (typeof call === 'bigint') return call;
  const located = openEntry(held, regs, call, LEAF_4K);
  if (typeof located === 'bigint') return located;
  const allowed = checkSeptState(regs, TDH.memPageRelocate, located);
  if (allowed !== STATUS.TDX_SUCCESS) return allowed;
  const { td } = call;
  const { ept, at, entry, level } = located;
  if (BigInt.asUintN(PA_BITS, regs.q[R8]!) === BigInt(ept.pageAddress(entry, level))) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R8);
  }
  const old = lockMappedPage(module, held, located);
  if (typeof old === 'bigint') return old;
  const tracked = checkBlockedAndTracked(regs, td, located, old.entry);
  if (tracked !== STATUS.TDX_SUCCESS) return tracked;
  const page = lockPage(module, held, regs, R8, 'exclusive', PAGE_TYPE.NDA);
  if (typeof page === 'bigint') return page;

  const { memory } = module.machine;
  const pending = isPending(entry);
  if (!pending) memory.copyPage(old.address, td.keyId, page.address, td.keyId);
  givePage(page, PAGE_TYPE.REG, td.address);
  page.walk.entry.bepoch = 0n;
  const pfn = ept.withKeyId(pfnOf(page.address));
  for (const alias of aliases(td, located)) {
    const moved = withPfn(alias.entry, pfn);
    alias.ept.write(alias.at, pending ? moved : l2Unblocked(moved));
  }
  ept.writeKeepingClaim(at, unblocked(withPfn(entry, pfn)));
  regs.q[RCX] = replacePage(old);
  return STATUS.TDX_SUCCESS;
}
