/**
 * Blocking an entry in the secure EPT of an L2 VM, and unblocking it. What the entry of a page grants is its VM's to
 * say, so that a blocked one keeps it in bits that have no use meanwhile (module facts 7).
 */
import { L2_STATE, l2State } from './l2-sept.ts';
import {
  isBlockedForWriting,
  isLeafEntry,
  isPending,
  SEPT_HIGH,
  SEPT_LOW,
  SEPT_RWX_XU,
  type SeptEntry,
} from './sept-entry.ts';

/** Pairs of bits: what the entry grants, and where a blocked entry keeps it. */
const SAVED_LOW = [
  [SEPT_LOW.R, 1 << 3],
  [SEPT_LOW.X, 1 << 4],
  [SEPT_LOW.XU, 1 << 5],
] as const;
/** W is kept in bit 59, PWA (bit 58) in bit 52. */
const SAVED_W_HIGH = 1 << 27;
/** @internal */
export const PWA_HIGH = 1 << 26;
const SAVED_PWA_HIGH = 1 << 20;
/** @internal */
export const VGP_HIGH = 1 << 25;
/** @internal */
export const SSS_HIGH = 1 << 28;
const STATE_LOW = SEPT_LOW.TDMEM | SEPT_LOW.LEAF;

/** The entry blocked; `forWriting` when the TD's own was blocked for writing already, so that W and PWA are saved. @public */
export function l2Blocked(entry: SeptEntry, forWriting: boolean): SeptEntry {
  let low = entry.low & ~SEPT_RWX_XU;
  let high = (entry.high & ~PWA_HIGH) | SEPT_HIGH.TDB;
  if (!isLeafEntry(entry)) return unsigned(low & ~STATE_LOW, high);
  for (const [grant, saved] of SAVED_LOW) low = (entry.low & grant) !== 0 ? low | saved : low & ~saved;
  if (!forWriting) {
    high = (entry.low & SEPT_LOW.W) !== 0 ? high | SAVED_W_HIGH : high & ~SAVED_W_HIGH;
    high = (entry.high & PWA_HIGH) !== 0 ? high | SAVED_PWA_HIGH : high & ~SAVED_PWA_HIGH;
  }
  return unsigned(low | STATE_LOW, high);
}

/** The entry unblocked; one that is not blocked stays as it is. @public */
export function l2Unblocked(entry: SeptEntry): SeptEntry {
  const state = l2State(entry);
  if (state === L2_STATE.NL_BLOCKED) {
    const low = (entry.low & ~(SEPT_LOW.MT | STATE_LOW)) | SEPT_RWX_XU;
    return unsigned(low, entry.high & ~(SEPT_HIGH.TDB | SAVED_W_HIGH));
  }
  if (state !== L2_STATE.BLOCKED) return entry;
  let low = (entry.low & ~(SEPT_LOW.MT | SEPT_RWX_XU)) | SEPT_LOW.MT_WB;
  for (const [grant, saved] of SAVED_LOW) if ((entry.low & saved) !== 0) low |= grant;
  if ((entry.high & SAVED_W_HIGH) !== 0) low |= SEPT_LOW.W;
  let high = entry.high & ~(SEPT_HIGH.TDB | SAVED_W_HIGH | SAVED_PWA_HIGH | PWA_HIGH);
  if ((entry.high & SAVED_PWA_HIGH) !== 0) high |= PWA_HIGH;
  return unsigned(low, high);
}

/** Attributes of a page for an L2 VM: bits of the 16-bit value (module facts 9). @public */
export const L2_ATTRIBUTE = {
  R: 1,
  W: 2,
  XS: 4,
  XU: 8,
  VGP: 16,
  PWA: 32,
  SSS: 64,
  SVE: 128,
  VALID: 0x8000,
} as const;
const ALL_ACCESS = L2_ATTRIBUTE.R | L2_ATTRIBUTE.W | L2_ATTRIBUTE.XS | L2_ATTRIBUTE.XU;

/** What an L2 entry says of its page, as if it were not blocked; `own` is the TD's own entry. @public */
export function l2Attributes(entry: SeptEntry, own: SeptEntry): number {
  const { low, high } = entry;
  const state = l2State(entry);
  if (state === L2_STATE.FREE) return (high & SEPT_HIGH.SVE) !== 0 ? L2_ATTRIBUTE.SVE : 0;
  if (!isLeafEntry(entry)) return ALL_ACCESS | L2_ATTRIBUTE.VALID;
  const blocked = state === L2_STATE.BLOCKED;
  const kept = blocked && (!isBlockedForWriting(own) || isPending(own));
  const [r, x, xu] = SAVED_LOW.map(([grant, saved]) => (low & (kept ? saved : grant)) !== 0);
  const w = blocked ? high & SAVED_W_HIGH : low & SEPT_LOW.W;
  const pwa = high & (blocked ? SAVED_PWA_HIGH : PWA_HIGH);
  return (
    (r ? L2_ATTRIBUTE.R : 0) |
    (w !== 0 ? L2_ATTRIBUTE.W : 0) |
    (x ? L2_ATTRIBUTE.XS : 0) |
    (xu ? L2_ATTRIBUTE.XU : 0) |
    ((high & VGP_HIGH) !== 0 ? L2_ATTRIBUTE.VGP : 0) |
    (pwa !== 0 ? L2_ATTRIBUTE.PWA : 0) |
    ((high & SSS_HIGH) !== 0 ? L2_ATTRIBUTE.SSS : 0) |
    ((high & SEPT_HIGH.SVE) !== 0 ? L2_ATTRIBUTE.SVE : 0) |
    L2_ATTRIBUTE.VALID
  );
}

function unsigned(low: number, high: number): SeptEntry {
  return { low: low >>> 0, high: high >>> 0 };
}
