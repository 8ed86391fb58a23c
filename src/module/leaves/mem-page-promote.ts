/**
 * TDH.MEM.PAGE.PROMOTE: makes 512 contiguous pages of a TD one of the next size (module facts 7).
 * In: RCX guest address and level of the large page, RDX TD. Out: RCX the secure EPT page set free; version 1: R9 to R11
 * those of L2 VMs, or all ones; with dynamic PAMT and 2 MiB: R12 and R13 the page pair set free.
 */
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { R8, R12, R13, RCX, RDX, type Registers, setRegNumber } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type LargeLevel, promotePamt } from '../pamt-resize.ts';
import type { LocatedEntry } from '../td/gpa.ts';
import { type Held, locking } from '../td/held.ts';
import { checkInterruption } from '../td/interruption.ts';
import { aliases } from '../td/l2-sept.ts';
import { MAX_VMS, NULL_PA } from '../td/layout.ts';
import { lockMappedPage, type OwnedPage, takeBack } from '../td/owned-page.ts';
import { checkSeptState, type EntryKind, enterPageLeaf, openEntry } from '../td/page-leaf.ts';
import { putSeptDetails, SEPT_LEVEL } from '../td/sept.ts';
import { SEPT_LOW } from '../td/sept-entry.ts';
import { areL2PagesMergeable, arePagesMergeable, firstChild } from '../td/sept-merge.ts';
import { checkBlockedAndTracked } from '../td/tlb-tracking.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memPagePromote: Leaf = { handler: locking(run) };

const TABLE_ENTRY: EntryKind = {
  minLevel: SEPT_LEVEL.PD_2M,
  maxLevel: SEPT_LEVEL.PDPT_1G,
  tree: 'exclusive',
};

/** A table that goes away, and the entry that leads to it. */
interface MergedTable {
  readonly vm: number;
  readonly parent: LocatedEntry;
  readonly page: OwnedPage;
}

function run(module: TdxModule, lp: LogicalProcessor, held: Held, version: number): bigint {
  const { regs } = lp;
  const [rcx, rdx] = [regs.q[RCX]!, regs.q[RDX]!];
  if (version > 0) regs.q.fill(NULL_PA, R8 + 1, R8 + MAX_VMS);
  if (version > 1) {
    regs.q[RCX] = 0n;
    regs.q[RDX] = 0n;
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  }
  const call = enterPageLeaf(module, held, regs, TDH.memPagePromote);
  if (typeof call === 'bigint') return call;
  const parent = openEntry(held, regs, call, TABLE_ENTRY);
  if (typeof parent === 'bigint') return parent;
  const allowed = checkSeptState(regs, TDH.memPagePromote, parent);
  if (allowed !== STATUS.TDX_SUCCESS) return allowed;
  const { td } = call;
  const own = lockMappedPage(module, held, parent);
  if (typeof own === 'bigint') return own;
  const tracked = checkBlockedAndTracked(regs, td, parent, own.entry);
  if (tracked !== STATUS.TDX_SUCCESS) return tracked;
  if (!arePagesMergeable(parent)) return notMergeable(regs, parent);
  const mayGoOn = (): bigint => {
    const status = checkInterruption(lp, td, STATUS.TDX_INTERRUPTED_RESTARTABLE);
    if (status !== STATUS.TDX_SUCCESS) {
      regs.q[RCX] = rcx;
      regs.q[RDX] = rdx;
    }
    return status;
  };
  const l2Tables: MergedTable[] = [];
  for (const alias of aliases(td, parent)) {
    const go = mayGoOn();
    if (go !== STATUS.TDX_SUCCESS) return go;
    const page = lockMappedPage(module, held, alias);
    if (typeof page === 'bigint') return page;
    if (!areL2PagesMergeable(alias)) return notMergeable(regs, parent);
    l2Tables.push({ vm: alias.vm, parent: alias, page });
  }
  const go = mayGoOn();
  if (go !== STATUS.TDX_SUCCESS) return go;
  const { ept, at } = parent;
  const first = firstChild(parent);
  const level = parent.level as LargeLevel;
  const freed = promotePamt(module.pamt, ept.pageAddress(first, level - 1), level);
  if (typeof freed === 'bigint') return withOperand(freed, OPERAND.RCX);

  ept.writeKeepingClaim(at, { ...first, low: first.low | SEPT_LOW.TDEL });
  for (const table of l2Tables) {
    table.parent.ept.writeKeepingClaim(table.parent.at, firstChild(table.parent));
    const given = takeBack(td, table.page);
    if (version > 0) regs.q[R8 + table.vm] = given;
  }
  regs.q[RCX] = takeBack(td, own);
  if (freed !== null) {
    setRegNumber(regs, R12, freed[0]);
    setRegNumber(regs, R13, freed[1]);
  }
  return STATUS.TDX_SUCCESS;
}

function notMergeable(regs: Registers, parent: LocatedEntry): bigint {
  putSeptDetails(regs, parent.ept, parent);
  return withOperand(STATUS.TDX_EPT_INVALID_PROMOTE_CONDITIONS, OPERAND.RCX);
}
