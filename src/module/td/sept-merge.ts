/** When the 512 entries of a secure EPT table can become one entry of the next level (module facts 7). */
import type { LocatedEntry } from './gpa.ts';
import { L2_STATE, l2State } from './l2-sept.ts';
import type { SecureEpt } from './sept.ts';
import { withoutAcceptCounter } from './sept-blocking.ts';
import { isLeafEntry, isMappedOrPending, SEPT_HIGH, SEPT_LOW, type SeptEntry } from './sept-entry.ts';

const ENTRIES = 512;
/** Bits beside the page number that must be the same: not A, D and the host's claim. */
const COMPARED_LOW = 0xfff & ~(SEPT_LOW.A | SEPT_LOW.D);
const COMPARED_HIGH = 0xfff0_0000 & ~SEPT_HIGH.TDHP;

/** The first entry of the table that `parent` leads to. @public */
export function firstChild({ ept, entry }: LocatedEntry): SeptEntry {
  return ept.read(ept.tableAt(ept.pfnOf(entry)));
}

/** True when the table maps contiguous pages, all mapped or all pending, aligned as the large page has to be. @public */
export function arePagesMergeable({ ept, entry, level }: LocatedEntry): boolean {
  const pages = ENTRIES ** (level - 1);
  const [first, ...others] = children(ept, entry).map((child) => withoutAcceptCounter(child, level - 1));
  const start = ept.pfnOf(first!);
  if (start % (pages * ENTRIES) !== 0 || !isMappedOrPending(first!)) return false;
  return others.every(
    (child, i) => hasSameBits(first!, child) && ept.pfnOf(child) === start + (i + 1) * pages,
  );
}

/** The same for a table of an L2 VM: all entries free or all leaves, with the same attributes. Addresses follow. @public */
export function areL2PagesMergeable({ ept, entry, level }: LocatedEntry): boolean {
  const [first, ...others] = children(ept, entry);
  const aligned = ept.pageAddress(first!, level - 1) % (4096 * ENTRIES ** level) === 0;
  if (l2State(first!) !== L2_STATE.FREE && !(aligned && isLeafEntry(first!))) return false;
  return others.every((child) => hasSameBits(first!, child));
}

function children(ept: SecureEpt, parent: SeptEntry): SeptEntry[] {
  const table = ept.tableAt(ept.pfnOf(parent));
  return Array.from({ length: ENTRIES }, (_, i) => ept.read(table + 2 * i));
}

function hasSameBits(one: SeptEntry, other: SeptEntry): boolean {
  return ((one.low ^ other.low) & COMPARED_LOW) === 0 && ((one.high ^ other.high) & COMPARED_HIGH) === 0;
}
