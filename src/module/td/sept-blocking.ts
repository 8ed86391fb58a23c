/** Blocking a secure EPT entry, unblocking it, and the accept counter that blocking forgets (module facts 7). */
import { SEPT_LEVEL } from './sept.ts';
import {
  isPendingAcceptable,
  SEPT_RWX_XU,
  SEPT_STATE,
  type SeptEntry,
  septState,
  withSeptState,
} from './sept-entry.ts';

/** Bits 20:12 of a pending 2 MiB entry count the 4 KiB pieces that the TD has accepted so far. */
const ACCEPT_COUNTER = 0x1f_f000;
const ACCEPT_COUNTER_SHIFT = 12;

/** State of an entry once it is blocked. */
const BLOCKED_STATES: ReadonlyMap<number, number> = new Map([
  [SEPT_STATE.NL_MAPPED, SEPT_STATE.NL_BLOCKED],
  [SEPT_STATE.MAPPED, SEPT_STATE.BLOCKED],
  [SEPT_STATE.BLOCKEDW, SEPT_STATE.BLOCKED],
  [SEPT_STATE.PENDING, SEPT_STATE.PENDING_BLOCKED],
  [SEPT_STATE.PENDING_BLOCKEDW, SEPT_STATE.PENDING_BLOCKED],
]);

/** State of a blocked entry once it is unblocked, and what it grants then. */
const UNBLOCKED_STATES: ReadonlyMap<number, readonly [state: number, permissions: number]> = new Map([
  [SEPT_STATE.NL_BLOCKED, [SEPT_STATE.NL_MAPPED, SEPT_RWX_XU]],
  [SEPT_STATE.BLOCKED, [SEPT_STATE.MAPPED, SEPT_RWX_XU]],
  [SEPT_STATE.PENDING_BLOCKED, [SEPT_STATE.PENDING, 0]],
]);

/** The entry at `level` without the count of its accepted pieces. @public */
export function withoutAcceptCounter(entry: SeptEntry, level: number): SeptEntry {
  if (level !== SEPT_LEVEL.PD_2M || !isPendingAcceptable(entry)) return entry;
  return { low: (entry.low & ~ACCEPT_COUNTER) >>> 0, high: entry.high };
}

/** 4 KiB pieces of the pending 2 MiB page that the TD has accepted so far. @public */
export function acceptedPieces({ low }: SeptEntry): number {
  return (low & ACCEPT_COUNTER) >>> ACCEPT_COUNTER_SHIFT;
}

/** The pending 2 MiB entry with another count of accepted pieces. @public */
export function withAcceptedPieces({ low, high }: SeptEntry, pieces: number): SeptEntry {
  return { low: ((low & ~ACCEPT_COUNTER) | (pieces << ACCEPT_COUNTER_SHIFT)) >>> 0, high };
}

/** The entry at `level` blocked. Throws for a state that MEM.RANGE.BLOCK does not work on. @public */
export function blocked(entry: SeptEntry, level: number): SeptEntry {
  const state = BLOCKED_STATES.get(septState(entry));
  if (state === undefined) throw new Error(`secure EPT state ${septState(entry)} cannot be blocked`);
  const { low, high } = withSeptState(withoutAcceptCounter(entry, level), state);
  return { low: (low & ~SEPT_RWX_XU) >>> 0, high };
}

/** The entry unblocked; one that is not blocked stays as it is. @public */
export function unblocked(entry: SeptEntry): SeptEntry {
  const target = UNBLOCKED_STATES.get(septState(entry));
  if (target === undefined) return entry;
  const [state, permissions] = target;
  const { low, high } = withSeptState(entry, state);
  return { low: (low | permissions) >>> 0, high };
}
