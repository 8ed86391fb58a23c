/**
 * Secure EPT entries (module facts 7): their bits, and the states those bits encode.
 *
 * An entry is handled as two 32-bit halves, because hot paths cannot afford a bigint per step.
 */
import { offsetIn } from '../../abi/address.ts';
import { TDG, TDH } from '../../abi/leaves.ts';

/** Bits of an entry's low half. @public */
export const SEPT_LOW = {
  R: 1 << 0,
  W: 1 << 1,
  X: 1 << 2,
  MT: 0b111 << 3,
  /** Memory type write-back: 6 in bits 5:3. */
  MT_WB: 0b110 << 3,
  TDMEM: 1 << 6,
  LEAF: 1 << 7,
  A: 1 << 8,
  D: 1 << 9,
  XU: 1 << 10,
  /** The entry is locked. */
  TDEL: 1 << 11,
  RWX: 0b111,
} as const;

/** Bits of an entry's high half. @public */
export const SEPT_HIGH = {
  /** A host waits for the entry's lock. */
  TDHP: 1 << 20,
  TDEX: 1 << 21,
  TDBW: 1 << 22,
  TDB: 1 << 23,
  TDP: 1 << 24,
  /** Link to L2 VM 1; those of VMs 2 and 3 follow. */
  TDAL1: 1 << 26,
  SVE: 0x8000_0000,
} as const;

/** R, W, X and XU: what a mapped entry grants. @public */
export const SEPT_RWX_XU = SEPT_LOW.RWX | SEPT_LOW.XU;

const STATE_LOW = SEPT_LOW.D | SEPT_LOW.TDMEM | SEPT_LOW.LEAF;
const STATE_HIGH = SEPT_HIGH.TDEX | SEPT_HIGH.TDBW | SEPT_HIGH.TDB | SEPT_HIGH.TDP;
const TDEX_SHIFT = 21;

/** State codes: D in bit 0, TDEX to TDP in bits 4:1, TDMEM and LEAF in bits 6:5. @public */
export const SEPT_STATE = {
  FREE: 0x0e,
  REMOVED: 0x0c,
  NL_MAPPED: 0x00,
  NL_BLOCKED: 0x08,
  MAPPED: 0x60,
  BLOCKED: 0x68,
  BLOCKEDW: 0x64,
  EXPORTED_BLOCKEDW: 0x66,
  EXPORTED_DIRTY: 0x63,
  EXPORTED_DIRTY_BLOCKEDW: 0x67,
  PENDING: 0x70,
  PENDING_BLOCKED: 0x78,
  PENDING_BLOCKEDW: 0x74,
  PENDING_EXPORTED_BLOCKEDW: 0x76,
  PENDING_EXPORTED_DIRTY: 0x73,
  PENDING_EXPORTED_DIRTY_BLOCKEDW: 0x77,
} as const;

/** @public */
export type SeptStateName = keyof typeof SEPT_STATE;

/** The number of each state in the ABI, as error details and SEPT.RD report it. */
const PUBLIC_STATES: Readonly<Record<SeptStateName, number>> = {
  FREE: 0,
  REMOVED: 5,
  NL_MAPPED: 0x84,
  NL_BLOCKED: 0x81,
  MAPPED: 4,
  BLOCKED: 1,
  BLOCKEDW: 8,
  EXPORTED_BLOCKEDW: 9,
  EXPORTED_DIRTY: 11,
  EXPORTED_DIRTY_BLOCKEDW: 12,
  PENDING: 2,
  PENDING_BLOCKED: 3,
  PENDING_BLOCKEDW: 16,
  PENDING_EXPORTED_BLOCKEDW: 17,
  PENDING_EXPORTED_DIRTY: 19,
  PENDING_EXPORTED_DIRTY_BLOCKEDW: 20,
};

const PUBLIC_BY_CODE = new Uint8Array(128);
for (const name of Object.keys(SEPT_STATE) as SeptStateName[])
  PUBLIC_BY_CODE[SEPT_STATE[name]] = PUBLIC_STATES[name];

/** A set of states, with one flag per state code. */
type StateSet = Uint8Array;

function setOf(...names: readonly SeptStateName[]): StateSet {
  const set = new Uint8Array(128);
  for (const name of names) set[SEPT_STATE[name]] = 1;
  return set;
}

/** A table indexed by leaf number. */
function byLeaf(
  rows: readonly (readonly [leaf: number, states: StateSet])[],
): readonly (StateSet | undefined)[] {
  const table: (StateSet | undefined)[] = [];
  for (const [leaf, states] of rows) table[leaf] = states;
  return table;
}

const LEAVES = [
  'MAPPED',
  'BLOCKED',
  'BLOCKEDW',
  'EXPORTED_BLOCKEDW',
  'EXPORTED_DIRTY',
  'EXPORTED_DIRTY_BLOCKEDW',
  'PENDING',
  'PENDING_BLOCKED',
  'PENDING_BLOCKEDW',
  'PENDING_EXPORTED_BLOCKEDW',
  'PENDING_EXPORTED_DIRTY',
  'PENDING_EXPORTED_DIRTY_BLOCKEDW',
] as const;

/** States each host leaf works on. */
const ALLOWED_BY_HOST_LEAF = byLeaf([
  [TDH.memPageAdd, setOf('FREE')],
  [TDH.memSeptAdd, setOf('FREE', 'NL_MAPPED')],
  [TDH.memPageRelocate, setOf(...LEAVES)],
  [TDH.memPageAug, setOf('FREE', 'REMOVED')],
  [TDH.memRangeBlock, setOf('NL_MAPPED', 'MAPPED', 'BLOCKEDW', 'PENDING', 'PENDING_BLOCKEDW')],
  [TDH.memRd, setOf('MAPPED', 'BLOCKEDW', 'EXPORTED_BLOCKEDW', 'EXPORTED_DIRTY', 'EXPORTED_DIRTY_BLOCKEDW')],
  [TDH.memWr, setOf('MAPPED', 'EXPORTED_DIRTY')],
  [TDH.memPageDemote, setOf('MAPPED', 'BLOCKED', 'PENDING', 'PENDING_BLOCKED')],
  [TDH.mrExtend, setOf('MAPPED')],
  [TDH.memPagePromote, setOf('NL_MAPPED', 'NL_BLOCKED')],
  [TDH.memSeptRd, setOf('FREE', 'REMOVED', 'NL_MAPPED', 'NL_BLOCKED', ...LEAVES)],
  [
    TDH.memPageRemove,
    setOf('MAPPED', 'BLOCKED', 'BLOCKEDW', 'PENDING', 'PENDING_BLOCKED', 'PENDING_BLOCKEDW'),
  ],
  [TDH.memSeptRemove, setOf('NL_MAPPED', 'NL_BLOCKED')],
  [TDH.memRangeUnblock, setOf('NL_BLOCKED', 'BLOCKED', 'PENDING_BLOCKED')],
]);

/** States each guest leaf works on. */
const ALLOWED_BY_GUEST_LEAF = byLeaf([
  [TDG.memPageAccept, setOf('PENDING', 'PENDING_EXPORTED_DIRTY')],
  [TDG.memPageAttrRd, setOf(...LEAVES.filter((name) => name !== 'BLOCKED' && name !== 'PENDING_BLOCKED'))],
  [TDG.memPageAttrWr, setOf('MAPPED', 'EXPORTED_DIRTY', 'PENDING', 'PENDING_EXPORTED_DIRTY')],
]);

const PENDING_ACCEPTABLE = setOf('PENDING', 'PENDING_EXPORTED_DIRTY');
const ANY_PENDING = setOf(...LEAVES.filter((name) => name.startsWith('PENDING')));
const ANY_BLOCKED_FOR_WRITING = setOf(...LEAVES.filter((name) => name.endsWith('BLOCKEDW')));
const MAPPED_OR_PENDING = setOf('MAPPED', 'PENDING');
/** Nobody can have cached a translation that lets the TD write. */
const UNTRACKED = setOf('FREE', 'REMOVED', 'EXPORTED_BLOCKEDW', 'PENDING_EXPORTED_BLOCKEDW');
const ANY_BLOCKED = setOf('NL_BLOCKED', 'BLOCKED', 'PENDING_BLOCKED');
const GUEST_ACCESSIBLE = setOf(
  'MAPPED',
  'BLOCKEDW',
  'EXPORTED_BLOCKEDW',
  'EXPORTED_DIRTY',
  'EXPORTED_DIRTY_BLOCKEDW',
);

/** One entry. @public */
export interface SeptEntry {
  readonly low: number;
  readonly high: number;
}

/** The entry's state code. @public */
export function septState({ low, high }: SeptEntry): number {
  return ((low >>> 9) & 1) | (((high >>> TDEX_SHIFT) & 0b1111) << 1) | (((low >>> 6) & 0b11) << 5);
}

/** The state's number in the ABI; 0 for bits that encode none. @public */
export function publicSeptState(entry: SeptEntry): number {
  return PUBLIC_BY_CODE[septState(entry)]!;
}

/** @public */
export function isLeafEntry(entry: SeptEntry): boolean {
  return (entry.low & SEPT_LOW.LEAF) !== 0;
}

/** True when host leaf `leaf` works on an entry in this state. @public */
export function isSeptStateAllowed(leaf: number, entry: SeptEntry): boolean {
  return ALLOWED_BY_HOST_LEAF[leaf]?.[septState(entry)] === 1;
}

/** True when guest leaf `leaf` works on an entry in this state. @public */
export function isSeptStateAllowedForGuest(leaf: number, entry: SeptEntry): boolean {
  return ALLOWED_BY_GUEST_LEAF[leaf]?.[septState(entry)] === 1;
}

/** True when the page waits for the TD to accept it. @public */
export function isPendingAcceptable(entry: SeptEntry): boolean {
  return PENDING_ACCEPTABLE[septState(entry)] === 1;
}

/** True when the TD has not accepted the page yet, be it blocked or not. @public */
export function isPending(entry: SeptEntry): boolean {
  return ANY_PENDING[septState(entry)] === 1;
}

/** True when the page is blocked for writing only. @public */
export function isBlockedForWriting(entry: SeptEntry): boolean {
  return ANY_BLOCKED_FOR_WRITING[septState(entry)] === 1;
}

/** True for the states in which pages can be merged. @public */
export function isMappedOrPending(entry: SeptEntry): boolean {
  return MAPPED_OR_PENDING[septState(entry)] === 1;
}

/** True when the entry must be blocked and tracked before it is taken from a TD that runs. @public */
export function needsTlbTracking(entry: SeptEntry): boolean {
  return UNTRACKED[septState(entry)] === 0;
}

/** True when the entry is blocked, at whatever level. @public */
export function isBlocked(entry: SeptEntry): boolean {
  return ANY_BLOCKED[septState(entry)] === 1;
}

/** True when the TD can read the page. @public */
export function isGuestAccessible(entry: SeptEntry): boolean {
  return GUEST_ACCESSIBLE[septState(entry)] === 1;
}

function stateLow(code: number): number {
  return ((code & 1) << 9) | (((code >>> 5) & 0b11) << 6);
}

function stateHigh(code: number): number {
  return ((code >>> 1) & 0b1111) << TDEX_SHIFT;
}

/** Memory type bits follow TDMEM: write-back for a TD's memory. */
function withMemoryType(low: number): number {
  const cleared = low & ~SEPT_LOW.MT;
  return (low & SEPT_LOW.TDMEM) !== 0 ? cleared | SEPT_LOW.MT_WB : cleared;
}

/** An entry that maps nothing: every entry of a fresh page. @public */
export const FREE_ENTRY: SeptEntry = {
  low: stateLow(SEPT_STATE.FREE),
  high: (stateHigh(SEPT_STATE.FREE) | SEPT_HIGH.SVE) >>> 0,
};

/**
 * An unlocked entry in state `code` for the page number `pfn`, which carries the KeyID. `permissions` are the bits
 * of R, W, X and XU.
 * @public
 */
export function septEntry(code: number, permissions: number, pfn: number): SeptEntry {
  return {
    low: (withMemoryType(permissions | stateLow(code)) | (offsetIn(pfn, 0x10_0000) << 12)) >>> 0,
    high: (stateHigh(code) | SEPT_HIGH.SVE | Math.floor(pfn / 0x10_0000)) >>> 0,
  };
}

/** The entry with another state; everything else but the memory type stays. @public */
export function withSeptState(entry: SeptEntry, code: number): SeptEntry {
  return {
    low: withMemoryType((entry.low & ~STATE_LOW) | stateLow(code)) >>> 0,
    high: ((entry.high & ~STATE_HIGH) | stateHigh(code) | SEPT_HIGH.SVE) >>> 0,
  };
}

/** The page number in the entry, KeyID included. @public */
export function entryPfn(entry: SeptEntry): number {
  return (entry.high & 0xf_ffff) * 0x10_0000 + (entry.low >>> 12);
}

/** The entry for another page number, KeyID included. @public */
export function withPfn({ low, high }: SeptEntry, pfn: number): SeptEntry {
  return {
    low: ((low & 0xfff) | (offsetIn(pfn, 0x10_0000) << 12)) >>> 0,
    high: ((high & ~0xf_ffff) | Math.floor(pfn / 0x10_0000)) >>> 0,
  };
}
