/**
 * Entries in the secure EPT of an L2 VM. They share page and level with an entry of the TD's own tree, which tells by
 * its alias bits that they exist; their states are fewer (module facts 7).
 */
import { RCX, RDX, type Registers } from '../../abi/registers.ts';
import type { LocatedEntry } from './gpa.ts';
import { TDCS } from './layout.ts';
import type { SecureEpt, SeptPosition } from './sept.ts';
import { isLeafEntry, SEPT_HIGH, SEPT_LOW, SEPT_RWX_XU, type SeptEntry } from './sept-entry.ts';
import type { TrustDomain } from './trust-domain.ts';

/** State codes: TDB in bit 0, TDMEM in bit 1, LEAF in bit 2, R in bit 3. @public */
export const L2_STATE = { FREE: 0, NL_BLOCKED: 1, MAPPED: 6, BLOCKED: 7, NL_MAPPED: 8 } as const;

/** The number of each state in the ABI, by state code. */
const PUBLIC_STATES: Readonly<Record<number, number>> = {
  [L2_STATE.FREE]: 0x40,
  [L2_STATE.NL_BLOCKED]: 0xc1,
  [L2_STATE.MAPPED]: 0x44,
  [L2_STATE.BLOCKED]: 0x41,
  [L2_STATE.NL_MAPPED]: 0xc4,
};

const LEAF_LOW = SEPT_LOW.MT | SEPT_LOW.TDMEM | SEPT_LOW.LEAF;
const NON_LEAF_LOW = SEPT_RWX_XU | SEPT_LOW.LEAF;
/** VGP, PWA, SSS: attributes that the host sees of a debug TD only. */
const ATTRIBUTES_HIGH = (1 << 25) | (1 << 26) | (1 << 28);

/** The state code; whether a leaf can be read is an attribute of it and no part of its state. @public */
export function l2State({ low, high }: SeptEntry): number {
  const readable = (low & SEPT_LOW.LEAF) === 0 ? low & 1 : 0;
  return ((high >>> 23) & 1) | (((low >>> 6) & 0b11) << 1) | (readable << 3);
}

/** An entry of an L2 tree that leads to the table `pfn`, KeyID included. @public */
export function l2TableEntry(pfn: number): SeptEntry {
  return { low: (SEPT_RWX_XU | ((pfn % 0x10_0000) << 12)) >>> 0, high: Math.floor(pfn / 0x10_0000) };
}

/** The bit of a TD's own entry that stands for an entry of L2 VM `vm`. @public */
export function aliasBit(vm: number): number {
  return SEPT_HIGH.TDAL1 << (vm - 1);
}

/** An entry of an L2 tree beside an entry of the TD's own. @public */
export interface Alias extends LocatedEntry {
  readonly vm: number;
}

/** The L2 entries that the TD's own entry `own` for `gpa` says exist, by ascending VM. @public */
export function* aliases(td: TrustDomain, own: LocatedEntry): Generator<Alias, void> {
  const vms = td.tdcs.u16(TDCS.NUM_L2_VMS);
  for (let vm = 1; vm <= vms; vm++) {
    if ((own.entry.high & aliasBit(vm)) === 0) continue;
    const ept = td.sept(vm);
    const position = ept.walk(own.gpa, own.level);
    if (position.level !== own.level) throw new Error(`VM ${vm} has no entry where the TD says it has one`);
    yield { vm, ept, gpa: own.gpa, ...position };
  }
}

/** Puts an L2 entry as the host may see it into RCX; its level, state and VM into RDX. @public */
export function putL2SeptDetails(
  regs: Registers,
  ept: SecureEpt,
  { level, entry }: SeptPosition,
  vm: number,
  debug: boolean,
): void {
  const seen = visibleEntry(ept, entry, debug);
  regs.d[2 * RCX] = seen.low;
  regs.d[2 * RCX + 1] = seen.high;
  const readable = entry.low & 1;
  const code = (l2State(entry) & 0b111) | (readable << 3);
  regs.d[2 * RDX] = level | ((PUBLIC_STATES[code] ?? 0) << 8) | (vm << 16);
  regs.d[2 * RDX + 1] = 0;
}

function visibleEntry(ept: SecureEpt, entry: SeptEntry, debug: boolean): SeptEntry {
  const state = l2State(entry);
  if (state === L2_STATE.FREE) return { low: 0, high: SEPT_HIGH.SVE };
  if (!isLeafEntry(entry)) return { low: entry.low & NON_LEAF_LOW, high: 0 };
  const pfn = ept.pfnOf(entry);
  const shown = debug ? entry.low & SEPT_RWX_XU : state === L2_STATE.MAPPED ? SEPT_RWX_XU : 0;
  const attributes = debug ? entry.high & ATTRIBUTES_HIGH : 0;
  return {
    low: (entry.low & LEAF_LOW) | shown | ((pfn % 0x10_0000) << 12),
    high: (entry.high & SEPT_HIGH.SVE) | attributes | Math.floor(pfn / 0x10_0000),
  };
}
