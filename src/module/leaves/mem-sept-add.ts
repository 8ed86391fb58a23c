/**
 * TDH.MEM.SEPT.ADD: adds secure EPT pages to a TD (module facts 7). Version 1 also adds pages to the trees of L2 VMs,
 * given in R9 to R11, and tells in R8 to R11 which pages it did not use.
 */
import { pfnOf } from '../../abi/address.ts';
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, RCX, RDX, type Registers } from '../../abi/registers.ts';
import { withInfo, withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { ATTRIBUTES, hasAny } from '../td/features.ts';
import { gpaOperand, type LocatedEntry, locateEntry, lockEntry } from '../td/gpa.ts';
import { type Held, locking } from '../td/held.ts';
import { checkInterruption } from '../td/interruption.ts';
import { aliasBit, L2_STATE, l2State, l2TableEntry, putL2SeptDetails } from '../td/l2-sept.ts';
import { MAX_VMS, NULL_PA, TDCS } from '../td/layout.ts';
import { enterOpState, givePage, type LockedPage, lockTdrWithFlags } from '../td/operands.ts';
import { septStateIncorrect } from '../td/page-leaf.ts';
import { SEPT_LEVEL } from '../td/sept.ts';
import {
  FREE_ENTRY,
  isSeptStateAllowed,
  SEPT_LOW,
  SEPT_RWX_XU,
  SEPT_STATE,
  septEntry,
  septState,
} from '../td/sept-entry.ts';
import { lockNewSeptPage, UNUSED_PAGE } from '../td/sept-page-operands.ts';
import { type TrustDomain, ZEROES } from '../td/trust-domain.ts';
import type { TdxModule } from '../tdx-module.ts';

/** RDX bit 0: a page that is there already is no error. */
const ALLOW_EXISTING = 1;

/** @internal */
export const memSeptAdd: Leaf = { handler: locking(run) };

type Halves = readonly [rcxLow: number, rcxHigh: number, rdxLow: number, rdxHigh: number];

/** A page for one VM's tree. */
interface NewPage {
  readonly vm: number;
  readonly page: LockedPage;
  /** The entry that will lead to it. */
  readonly parent: LocatedEntry;
}

function run(module: TdxModule, lp: LogicalProcessor, held: Held, version: number): bigint {
  const { regs } = lp;
  const rcx = regs.q[RCX]!;
  const rdx = regs.q[RDX]!;
  const [rcxLow, rcxHigh, rdxLow, rdxHigh] = regs.d.slice(2 * RCX, 2 * RDX + 2) as unknown as Halves;
  regs.q[RCX] = 0n;
  regs.q[RDX] = 0n;
  if (version > 1) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  const vms = version === 0 ? 1 : MAX_VMS;
  if (version > 0) clearUnusedMarks(regs);
  const handle = lockTdrWithFlags(module, held, rdxLow, rdxHigh, 'shared', ALLOW_EXISTING);
  if (typeof handle === 'bigint') return handle;
  const { td, flags } = handle;
  const entered = enterOpState(held, td, TDH.memSeptAdd, 'shared');
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const operand = gpaOperand(rcxLow, rcxHigh, SEPT_LEVEL.PD_2M, td.sept().rootLevel);
  if (operand === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const located = locateEntry(held, td, regs, operand, 'shared');
  if (typeof located === 'bigint') return located;
  const parent = lockEntry(held, regs, located);
  if (typeof parent === 'bigint') return parent;
  if (!isSeptStateAllowed(TDH.memSeptAdd, parent.entry)) return septStateIncorrect(regs, parent);
  const allowExisting = flags !== 0;
  const pages: NewPage[] = [];
  const own = prepareOwnPage(module, held, regs, parent, version, allowExisting, pages);
  if (own !== STATUS.TDX_SUCCESS) return own;
  for (let vm = 1; vm < vms; vm++) {
    if (regs.q[R8 + vm] === NULL_PA) continue;
    const l2 = prepareL2Page(module, held, regs, td, operand.gpa, parent, vm, allowExisting, pages);
    if (l2 !== STATUS.TDX_SUCCESS) return l2;
  }

  for (const [i, page] of pages.entries()) {
    const go = i === 0 ? STATUS.TDX_SUCCESS : checkInterruption(lp, td, STATUS.TDX_INTERRUPTED_RESUMABLE);
    if (go !== STATUS.TDX_SUCCESS) {
      regs.q[RCX] = rcx;
      regs.q[RDX] = rdx;
      return go;
    }
    addPage(td, page, parent);
    if (version > 0) regs.q[R8 + page.vm] = NULL_PA;
  }
  return STATUS.TDX_SUCCESS;
}

function clearUnusedMarks(regs: Registers): void {
  for (let vm = 0; vm < MAX_VMS; vm++) {
    const given = regs.q[R8 + vm]!;
    if (given !== NULL_PA) regs.q[R8 + vm] = given & ~UNUSED_PAGE;
  }
}

function addPage(td: TrustDomain, { vm, page, parent }: NewPage, own: LocatedEntry): void {
  const { ept } = parent;
  const pfn = ept.withKeyId(pfnOf(page.address));
  td.claimPage(page.address, vm === 0 ? FREE_ENTRY : ZEROES);
  givePage(page, PAGE_TYPE.EPT, td.address);
  page.walk.entry.bepoch = 0n;
  td.addChildren(1);
  if (vm === 0) {
    const entry = septEntry(SEPT_STATE.NL_MAPPED, SEPT_RWX_XU, pfn);
    ept.writeKeepingClaim(parent.at, { ...entry, low: entry.low | SEPT_LOW.TDEL });
    return;
  }
  const linked = own.ept.read(own.at);
  own.ept.write(own.at, { ...linked, high: linked.high | aliasBit(vm) });
  ept.write(parent.at, l2TableEntry(pfn));
}

/** The page in R8 for the TD's own tree: none, one that is there already, or a new one. */
function prepareOwnPage(
  module: TdxModule,
  held: Held,
  regs: Registers,
  parent: LocatedEntry,
  version: number,
  allowExisting: boolean,
  pages: NewPage[],
): bigint {
  const state = septState(parent.entry);
  if (regs.q[R8] === NULL_PA) {
    if (version === 0) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R8);
    return state === SEPT_STATE.NL_MAPPED ? STATUS.TDX_SUCCESS : septStateIncorrect(regs, parent);
  }
  if (state !== SEPT_STATE.FREE) {
    if (!allowExisting) return septStateIncorrect(regs, parent);
    if (version > 0) regs.q[R8]! |= UNUSED_PAGE;
    return STATUS.TDX_SUCCESS;
  }
  const page = lockNewSeptPage(module, held, regs, R8);
  if (typeof page === 'bigint') return page;
  pages.push({ vm: 0, page, parent });
  return STATUS.TDX_SUCCESS;
}

function prepareL2Page(
  module: TdxModule,
  held: Held,
  regs: Registers,
  td: TrustDomain,
  gpa: number,
  own: LocatedEntry,
  vm: number,
  allowExisting: boolean,
  pages: NewPage[],
): bigint {
  if (vm > td.tdcs.u16(TDCS.NUM_L2_VMS)) return withOperand(STATUS.TDX_OPERAND_INVALID, R8 + vm);
  const debug = hasAny(td.tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.DEBUG);
  const ept = td.sept(vm);
  const position = ept.walk(gpa, own.level);
  const details = (status: bigint): bigint => {
    putL2SeptDetails(regs, ept, position, vm, debug);
    return withInfo(status, position.level, 0, vm);
  };
  if (position.level !== own.level) return details(STATUS.TDX_L2_SEPT_WALK_FAILED);
  if (l2State(position.entry) !== L2_STATE.FREE) {
    if (!allowExisting) return details(STATUS.TDX_L2_SEPT_ENTRY_NOT_FREE);
    regs.q[R8 + vm]! |= UNUSED_PAGE;
    return STATUS.TDX_SUCCESS;
  }
  const page = lockNewSeptPage(module, held, regs, R8 + vm);
  if (typeof page === 'bigint') return page;
  pages.push({ vm, page, parent: { ept, gpa, ...position } });
  return STATUS.TDX_SUCCESS;
}
