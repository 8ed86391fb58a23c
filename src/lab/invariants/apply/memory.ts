/** Effects of the leaves on a TD's memory: secure EPT and the pages it maps. */
import { PAGE_4K } from '../../../abi/address.ts';
import { LEVEL_2M, PAGE_TYPE, type PageLevel } from '../../../abi/page-types.ts';
import { R8, R12, R13, RCX, RDX } from '../../../abi/registers.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { AbstractEntry, AbstractState, AbstractTd, EntryState } from '../abstract-state.ts';
import { type GpaKey, gpaKey, type HostCall, pageIn, pageOut } from '../host-call.ts';
import { type ApplyLeaf, tdIn } from './life-cycle.ts';
import { answered, give, giveBack, unfounded } from './pages.ts';
import { lend, unlend } from './pairs.ts';

const NO_PAGE = 0xffff_ffff_ffff_ffffn;
const UNUSED_PAGE = 1n << 63n;
/** Bit 0 of RDX: for L2 VMs only where they have an entry. */
const SPARSE = 1n;
const L2_VMS = [1, 2, 3] as const;
const CHILDREN = 512;
const FOREVER = Number.POSITIVE_INFINITY;

const BLOCKED: Readonly<Partial<Record<EntryState, EntryState>>> = {
  NL_MAPPED: 'NL_BLOCKED',
  MAPPED: 'BLOCKED',
  PENDING: 'PENDING_BLOCKED',
};
const UNBLOCKED: Readonly<Partial<Record<EntryState, EntryState>>> = {
  NL_BLOCKED: 'NL_MAPPED',
  BLOCKED: 'MAPPED',
  PENDING_BLOCKED: 'PENDING',
};

/** What a leaf that works page by page returns between two of them: for an event, or for a claim on the tree's lock. */
const INTERRUPTED: ReadonlySet<bigint> = new Set([
  STATUS.TDX_INTERRUPTED_RESUMABLE,
  STATUS.TDX_INTERRUPTED_BUSY,
]);

/** A call on an entry of a TD. */
interface Place extends GpaKey {
  readonly td: AbstractTd;
}

function placeOf(state: AbstractState, call: HostCall): Place | undefined {
  const td = tdIn(state, call, RDX);
  return td === undefined ? undefined : { td, ...gpaKey(call.in[RCX]!) };
}

function entryAt(
  state: AbstractState,
  call: HostCall,
  kind: 'leaf' | 'table',
): (Place & { readonly entry: AbstractEntry }) | undefined {
  const place = placeOf(state, call);
  if (place === undefined) return undefined;
  const entry = place.td.sept.get(place.key);
  if (entry !== undefined && entry.state.startsWith('NL_') === (kind === 'table')) return { ...place, entry };
  unfounded(state, `guest address ${place.gpa.toString(16)} has no ${kind} at level ${place.level}`);
  return undefined;
}

function map(state: AbstractState, { td, key }: Place, entry: AbstractEntry): void {
  if (td.sept.has(key)) unfounded(state, `guest address ${key.toString(16)} was not free`);
  td.sept.set(key, entry);
  state.effects.push({ kind: 'mapped', td, key, entry });
}

function reachableNow(state: AbstractState): { readonly since: number; readonly until: number } {
  return { since: state.time, until: FOREVER };
}

/** @internal */
export const memPageAdd: ApplyLeaf = (state, call) => {
  const place = placeOf(state, call);
  if (place === undefined) return;
  const page = pageIn(call, R8);
  give(state, page, PAGE_TYPE.REG, place.td);
  map(state, place, { state: 'MAPPED', page, reach: reachableNow(state) });
};

/** @internal */
export const memPageAug: ApplyLeaf = (state, call) => {
  const place = placeOf(state, call);
  if (place === undefined) return;
  const page = pageIn(call, R8);
  give(state, page, PAGE_TYPE.REG, place.td, place.level as PageLevel);
  map(state, place, { state: 'PENDING', page, reach: null });
};

/** Adds tables: version 0 one for the TD, version 1 one for each VM, and those before an interruption. @internal */
export const memSeptAdd: ApplyLeaf = (state, call) => {
  if (call.status !== STATUS.TDX_SUCCESS && (call.version === 0 || !INTERRUPTED.has(call.status))) return;
  const place = placeOf(state, call);
  if (place === undefined) return;
  const isOwnAdded = call.version === 0 ? !place.td.sept.has(place.key) : isUsedUp(call, R8);
  if (isOwnAdded) {
    const page = pageIn(call, R8);
    give(state, page, PAGE_TYPE.EPT, place.td);
    map(state, place, { state: 'NL_MAPPED', page, reach: reachableNow(state) });
  }
  if (call.version === 0) return;
  for (const vm of L2_VMS) if (isUsedUp(call, R8 + vm)) addL2Table(state, call, place, vm);
};

/** The page in the register is gone: all ones tell that it was used. */
function isUsedUp(call: HostCall, register: number): boolean {
  return call.in[register] !== NO_PAGE && call.out[register] === NO_PAGE;
}

function addL2Table(state: AbstractState, call: HostCall, { td, key }: Place, vm: number): void {
  const page = pageIn(call, R8 + vm);
  give(state, page, PAGE_TYPE.EPT, td);
  td.l2Tables[vm - 1]!.set(key, page);
}

function removeL2Tables(state: AbstractState, { td, key }: Place, entry: AbstractEntry): void {
  for (const tables of td.l2Tables) {
    const page = tables.get(key);
    if (page === undefined) continue;
    giveBack(state, page, td, entry.reach);
    tables.delete(key);
  }
}

/** @internal */
export const memSeptRemove: ApplyLeaf = (state, call) => {
  const place = entryAt(state, call, 'table');
  if (place === undefined) return;
  removeL2Tables(state, place, place.entry);
  takeOut(state, call, place, place.entry);
};

/** @internal */
export const memPageRemove: ApplyLeaf = (state, call) => {
  const place = entryAt(state, call, 'leaf');
  if (place !== undefined) takeOut(state, call, place, place.entry);
};

/** The page of an entry goes back, and RCX says which. */
function takeOut(state: AbstractState, call: HostCall, { td, key }: Place, entry: AbstractEntry): void {
  answered(state, 'page given back', entry.page, pageOut(call, RCX));
  td.sept.delete(key);
  giveBack(state, entry.page, td, entry.reach);
}

/** @internal */
export const memRangeBlock: ApplyLeaf = (state, call) => {
  const place = placeOf(state, call);
  const entry = place?.td.sept.get(place.key);
  const blocked = entry === undefined ? undefined : BLOCKED[entry.state];
  if (entry === undefined || blocked === undefined) {
    unfounded(state, 'a range was blocked that could not be');
    return;
  }
  entry.state = blocked;
  if (entry.reach !== null) entry.reach = { since: entry.reach.since, until: state.time };
};

/** @internal */
export const memRangeUnblock: ApplyLeaf = (state, call) => {
  const place = placeOf(state, call);
  const entry = place?.td.sept.get(place.key);
  if (entry === undefined || UNBLOCKED[entry.state] === undefined) {
    unfounded(state, 'a range was unblocked that was not blocked');
    return;
  }
  unblock(entry);
};

function unblock(entry: AbstractEntry): void {
  entry.state = UNBLOCKED[entry.state] ?? entry.state;
  if (entry.reach !== null) entry.reach = { since: entry.reach.since, until: FOREVER };
}

/** @internal */
export const memTrack: ApplyLeaf = (state, call) => {
  const td = tdIn(state, call, RCX);
  if (td !== undefined) td.epoch++;
};

/** @internal */
export const memPageRelocate: ApplyLeaf = (state, call) => {
  const place = entryAt(state, call, 'leaf');
  if (place === undefined) return;
  const { td, entry } = place;
  const page = pageIn(call, R8);
  answered(state, 'page given back', entry.page, pageOut(call, RCX));
  give(state, page, PAGE_TYPE.REG, td);
  giveBack(state, entry.page, td, entry.reach);
  entry.page = page;
  unblock(entry);
  if (entry.reach !== null) entry.reach = reachableNow(state);
};

/** Addresses of the pieces of a large page: guest addresses with their level, and offsets in the page. */
function* pieces({ gpa, level }: GpaKey): Generator<{ readonly key: number; readonly offset: number }> {
  const size = PAGE_4K * 512 ** (level - 1);
  for (let i = 0; i < CHILDREN; i++) yield { key: gpa + i * size + level - 1, offset: i * size };
}

/** @internal */
export const memPagePromote: ApplyLeaf = (state, call) => {
  const place = entryAt(state, call, 'table');
  if (place === undefined) return;
  const { td, entry, level, gpa, key } = place;
  const first = td.sept.get(gpa + level - 1);
  if (first === undefined) {
    unfounded(state, 'a table without pages was promoted');
    return;
  }
  for (const piece of pieces(place)) {
    const child = td.sept.get(piece.key);
    if (child?.state !== first.state || child.page !== first.page + piece.offset) {
      unfounded(state, `the page at ${piece.key.toString(16)} does not fit into the promoted one`);
    }
    state.pages.delete(first.page + piece.offset);
    td.sept.delete(piece.key);
  }
  state.pages.set(first.page, { type: PAGE_TYPE.REG, level: level as PageLevel, owner: td.tdr });
  if (state.platform.dynamicPamt && level === LEVEL_2M) unlend(state, first.page, call, R12, R13);
  answered(state, 'table given back', entry.page, pageOut(call, RCX));
  removeL2Tables(state, place, entry);
  giveBack(state, entry.page, td, entry.reach);
  const reach = first.reach === null ? null : { since: entry.reach!.since, until: FOREVER };
  td.sept.set(key, { state: first.state, page: first.page, reach });
};

/** @internal */
export const memPageDemote: ApplyLeaf = (state, call) => {
  const place = entryAt(state, call, 'leaf');
  if (place === undefined) return;
  const { td, entry, level, key } = place;
  if (state.platform.dynamicPamt && level === LEVEL_2M) lend(state, entry.page, call, R12, R13);
  const page: AbstractEntry = { ...entry };
  unblock(page);
  state.pages.delete(entry.page);
  for (const piece of pieces(place)) {
    const address = entry.page + piece.offset;
    state.pages.set(address, { type: PAGE_TYPE.REG, level: (level - 1) as PageLevel, owner: td.tdr });
    td.sept.set(piece.key, { ...page, page: address });
  }
  const table = pageIn(call, R8);
  give(state, table, PAGE_TYPE.EPT, td);
  td.sept.set(key, { state: 'NL_MAPPED', page: table, reach: reachableNow(state) });
  for (const vm of L2_VMS) {
    if (vm <= td.l2Vms && isOfferTaken(call, R8 + vm)) addL2Table(state, call, place, vm);
  }
};

/** A page that was offered for an L2 VM was used, unless bit 63 says otherwise. */
function isOfferTaken(call: HostCall, register: number): boolean {
  if (call.in[register] === NO_PAGE) return false;
  return (call.in[RDX]! & SPARSE) === 0n || (call.out[register]! & UNUSED_PAGE) === 0n;
}

/** Level and state of the entry are what SEPT.RD says. @internal */
export const memSeptRd: ApplyLeaf = (state, call) => {
  const place = placeOf(state, call);
  if (place === undefined) return;
  const entry = place.td.sept.get(place.key);
  const found = (call.out[RDX]! >> 8n) & 0xffn;
  answered(state, 'state of the entry', entry === undefined ? 0 : PUBLIC_STATES[entry.state], found);
};

/** Numbers of the states in the ABI (facts: secure EPT states). */
const PUBLIC_STATES: Readonly<Record<EntryState, number>> = {
  NL_MAPPED: 0x84,
  NL_BLOCKED: 0x81,
  MAPPED: 4,
  BLOCKED: 1,
  PENDING: 2,
  PENDING_BLOCKED: 3,
};

/** The guest accepted the page in RCX of its TDCALL. @internal */
export function acceptPage(state: AbstractState, td: AbstractTd, rcx: bigint, rax: bigint): void {
  if (rax !== STATUS.TDX_SUCCESS) return;
  const entry = td.sept.get(gpaKey(rcx).key);
  if (entry?.state !== 'PENDING') {
    unfounded(state, `the guest accepted ${rcx.toString(16)}, which was not pending`);
    return;
  }
  entry.state = 'MAPPED';
  entry.reach = reachableNow(state);
}
