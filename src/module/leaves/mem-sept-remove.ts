/**
 * TDH.MEM.SEPT.REMOVE: takes an empty secure EPT page from a TD, and with it those of L2 VMs (module facts 7).
 * In: RCX guest address and level of the entry that leads to the page, RDX TD. Out: RCX the page; version 1: R9 to R11
 * the pages of L2 VMs, or all ones. Bit 62 of a page: its page pair is no longer used.
 */
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { R8, RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { type Alias, aliases } from '../td/l2-sept.ts';
import { MAX_VMS, NULL_PA } from '../td/layout.ts';
import { lockMappedPage, type OwnedPage, takeBack } from '../td/owned-page.ts';
import { checkSeptState, type EntryKind, enterPageLeaf, openEntry } from '../td/page-leaf.ts';
import { putSeptDetails, SEPT_LEVEL, type SecureEpt } from '../td/sept.ts';
import { FREE_ENTRY, SEPT_STATE, type SeptEntry, septState } from '../td/sept-entry.ts';
import { checkBlockedAndTracked } from '../td/tlb-tracking.ts';
import { ZEROES } from '../td/trust-domain.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memSeptRemove: Leaf = { handler: locking(run) };

const TABLE_ENTRY: EntryKind = { minLevel: SEPT_LEVEL.PD_2M, tree: 'exclusive' };

function run(module: TdxModule, lp: LogicalProcessor, held: Held, version: number): bigint {
  const { regs } = lp;
  if (version > 0) regs.q.fill(NULL_PA, R8 + 1, R8 + MAX_VMS);
  if (version > 1) {
    regs.q[RCX] = 0n;
    regs.q[RDX] = 0n;
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  }
  const call = enterPageLeaf(module, held, regs, TDH.memSeptRemove);
  if (typeof call === 'bigint') return call;
  const located = openEntry(held, regs, call, TABLE_ENTRY);
  if (typeof located === 'bigint') return located;
  const allowed = checkSeptState(regs, TDH.memSeptRemove, located);
  if (allowed !== STATUS.TDX_SUCCESS) return allowed;
  const own = lockMappedPage(module, held, located);
  if (typeof own === 'bigint') return own;
  const { td } = call;
  const { ept, at, entry } = located;
  const tracked = checkBlockedAndTracked(regs, td, located, own.entry);
  if (tracked !== STATUS.TDX_SUCCESS) return tracked;
  if (!isTableFree(ept, entry)) {
    putSeptDetails(regs, ept, located);
    return withOperand(STATUS.TDX_EPT_PAGE_NOT_FREE, OPERAND.RCX);
  }
  const l2Tables: (readonly [alias: Alias, page: OwnedPage])[] = [];
  for (const alias of aliases(td, located)) {
    const page = lockMappedPage(module, held, alias);
    if (typeof page === 'bigint') return page;
    l2Tables.push([alias, page]);
  }

  for (const [alias, page] of l2Tables.reverse()) {
    alias.ept.write(alias.at, ZEROES);
    const given = takeBack(td, page);
    if (version > 0) regs.q[R8 + alias.vm] = given;
  }
  ept.writeKeepingClaim(at, FREE_ENTRY);
  regs.q[RCX] = takeBack(td, own);
  return STATUS.TDX_SUCCESS;
}

function isTableFree(ept: SecureEpt, entry: SeptEntry): boolean {
  const table = ept.tableAt(ept.pfnOf(entry));
  for (let i = 0; i < 512; i++) {
    if (septState(ept.read(table + 2 * i)) !== SEPT_STATE.FREE) return false;
  }
  return true;
}
