/**
 * TDH.MEM.PAGE.DEMOTE: makes a large page of a TD 512 of the next smaller size, unblocked (module facts 7).
 * In: RCX guest address and level of the large page, RDX TD, bit 0: secure EPT pages of L2 VMs only where an entry
 * exists; R8 new secure EPT page, R9 to R11 those of L2 VMs or all ones; with dynamic PAMT and 2 MiB: R12 and R13 a page
 * pair. Out: R9 to R11, with bit 63 where the page was not used.
 */
import { pfnOf } from '../../abi/address.ts';
import { TDH } from '../../abi/leaves.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, R12, R13, RCX, RDX, type Registers } from '../../abi/registers.ts';
import { withInfo, withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { demotePamt, type LargeLevel } from '../pamt-resize.ts';
import { ATTRIBUTES, hasAny } from '../td/features.ts';
import type { LocatedEntry } from '../td/gpa.ts';
import { type Held, locking } from '../td/held.ts';
import { checkInterruption } from '../td/interruption.ts';
import { l2Unblocked } from '../td/l2-blocking.ts';
import { aliasBit, l2TableEntry, putL2SeptDetails } from '../td/l2-sept.ts';
import { NULL_PA, TDCS } from '../td/layout.ts';
import { givePage, type LockedPage, lockPage, plainHpa } from '../td/operands.ts';
import { mappedPage } from '../td/owned-page.ts';
import { checkSeptState, type EntryKind, enterPageLeaf, openEntry } from '../td/page-leaf.ts';
import { SEPT_LEVEL } from '../td/sept.ts';
import { unblocked, withoutAcceptCounter } from '../td/sept-blocking.ts';
import {
  isBlocked,
  isPending,
  SEPT_LOW,
  SEPT_RWX_XU,
  SEPT_STATE,
  type SeptEntry,
  septEntry,
  withPfn,
} from '../td/sept-entry.ts';
import { lockNewSeptPage, UNUSED_PAGE } from '../td/sept-page-operands.ts';
import { checkBlockedAndTracked } from '../td/tlb-tracking.ts';
import type { TrustDomain } from '../td/trust-domain.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memPageDemote: Leaf = { handler: locking(run) };

/** RDX bit 0: pages for L2 VMs are used only where the large page has an entry in their tree. */
const SPARSE = 1;
const LEAF_ENTRY: EntryKind = { minLevel: SEPT_LEVEL.PD_2M, maxLevel: SEPT_LEVEL.PDPT_1G, tree: 'shared' };

/** A new table for an L2 VM's tree. */
interface L2Table {
  readonly vm: number;
  readonly page: LockedPage;
  /** The large page has an entry in the VM's tree. */
  readonly aliased: boolean;
}

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const [rcx, rdx] = [regs.q[RCX]!, regs.q[RDX]!];
  const call = enterPageLeaf(module, held, regs, TDH.memPageDemote, SPARSE);
  if (typeof call === 'bigint') return call;
  const opened = openEntry(held, regs, call, LEAF_ENTRY);
  if (typeof opened === 'bigint') return opened;
  const allowed = checkSeptState(regs, TDH.memPageDemote, opened);
  if (allowed !== STATUS.TDX_SUCCESS) return allowed;
  const { td } = call;
  const located = { ...opened, entry: withoutAcceptCounter(opened.entry, opened.level) };
  const large = mappedPage(module, located);
  const tracked = checkBlockedAndTracked(regs, td, located, large.entry);
  if (tracked !== STATUS.TDX_SUCCESS) return tracked;
  const table = lockPage(module, held, regs, R8, 'exclusive', PAGE_TYPE.NDA);
  if (typeof table === 'bigint') return table;
  const offered = [R8, R8 + 1, R8 + 2, R8 + 3].map((register) => regs.q[register]!);
  const l2Tables = lockL2Tables(module, held, regs, td, located.entry, call.flags === SPARSE, offered);
  if (typeof l2Tables === 'bigint') return l2Tables;
  const mayGoOn = (): bigint => {
    const status = checkInterruption(lp, td, STATUS.TDX_INTERRUPTED_RESTARTABLE);
    if (status !== STATUS.TDX_SUCCESS) {
      regs.q[RCX] = rcx;
      regs.q[RDX] = rdx;
    }
    return status;
  };
  const unlockedEntry = unblocked({ ...located.entry, low: (located.entry.low & ~SEPT_LOW.TDEL) >>> 0 });
  splitEntry(td, table, located, unlockedEntry);
  const l2Parents: LocatedEntry[] = [];
  for (const l2Table of l2Tables) {
    const go = mayGoOn();
    if (go !== STATUS.TDX_SUCCESS) return go;
    const parent = splitL2Entry(regs, td, located, l2Table);
    if (typeof parent === 'bigint') return parent;
    l2Parents.push(parent);
  }
  const go = mayGoOn();
  if (go !== STATUS.TDX_SUCCESS) return go;
  const demoted = demotePamt(module.pamt, large.address, located.level as LargeLevel, [
    plainHpa(module.platform!, regs.d[2 * R12]!, regs.d[2 * R12 + 1]!),
    plainHpa(module.platform!, regs.d[2 * R13]!, regs.d[2 * R13 + 1]!),
  ]);
  if (demoted !== STATUS.TDX_SUCCESS) return demoted;

  const { ept, at } = located;
  let entry = septEntry(SEPT_STATE.NL_MAPPED, SEPT_RWX_XU, ept.withKeyId(pfnOf(table.address)));
  giveTable(td, table);
  for (const [i, { vm, page }] of l2Tables.entries()) {
    const parent = l2Parents[i]!;
    parent.ept.write(parent.at, l2TableEntry(ept.withKeyId(pfnOf(page.address))));
    entry = { low: entry.low, high: (entry.high | aliasBit(vm)) >>> 0 };
    giveTable(td, page);
  }
  ept.writeKeepingClaim(at, entry);
  for (let vm = 1; vm < offered.length; vm++) regs.q[R8 + vm] = offered[vm]!;
  return STATUS.TDX_SUCCESS;
}

/** Unlike a page that SEPT.ADD gives, one that DEMOTE gives keeps the epoch its metadata had. */
function giveTable(td: TrustDomain, page: LockedPage): void {
  givePage(page, PAGE_TYPE.EPT, td.address);
  td.addChildren(1);
}

/** Locks the pages offered for L2 VMs that are used, and marks the others in `offered`. */
function lockL2Tables(
  module: TdxModule,
  held: Held,
  regs: Registers,
  td: TrustDomain,
  entry: SeptEntry,
  sparse: boolean,
  offered: bigint[],
): readonly L2Table[] | bigint {
  const tables: L2Table[] = [];
  const vms = td.tdcs.u16(TDCS.NUM_L2_VMS);
  for (let vm = 1; vm <= vms; vm++) {
    const aliased = (entry.high & aliasBit(vm)) !== 0;
    if (offered[vm] === NULL_PA) {
      if (aliased) return withOperand(STATUS.TDX_L2_SEPT_PAGE_NOT_PROVIDED, R8 + vm);
    } else if (!sparse || aliased) {
      const page = lockNewSeptPage(module, held, regs, R8 + vm);
      if (typeof page === 'bigint') return page;
      tables.push({ vm, page, aliased });
    } else offered[vm]! |= UNUSED_PAGE;
  }
  return tables;
}

/** Fills a new table with entries like `entry` for the pieces of the page that `located` maps. */
function splitEntry(td: TrustDomain, table: LockedPage, located: LocatedEntry, entry: SeptEntry): void {
  const { ept, level } = located;
  td.claimPage(table.address);
  const first = ept.tableAt(pfnOf(table.address));
  const start = ept.withKeyId(pfnOf(ept.pageAddress(located.entry, level)));
  const pages = 512 ** (level - 1);
  for (let i = 0; i < 512; i++) ept.write(first + 2 * i, withPfn(entry, start + i * pages));
}

/** Fills the new table of an L2 VM. Returns the entry that will lead to it, or the status with its details. */
function splitL2Entry(
  regs: Registers,
  td: TrustDomain,
  located: LocatedEntry,
  { vm, page, aliased }: L2Table,
): LocatedEntry | bigint {
  const ept = td.sept(vm);
  const position = ept.walk(located.gpa, located.level);
  if (position.level !== located.level) {
    putL2SeptDetails(regs, ept, position, vm, hasAny(td.tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.DEBUG));
    return withInfo(STATUS.TDX_L2_SEPT_WALK_FAILED, position.level, 0, vm);
  }
  if (aliased) {
    const unblocks = isBlocked(located.entry) && !isPending(located.entry);
    splitEntry(td, page, located, unblocks ? l2Unblocked(position.entry) : position.entry);
  } else td.claimPage(page.address);
  return { ept, gpa: located.gpa, ...position };
}
