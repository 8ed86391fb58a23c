/**
 * The module's locks (module facts 13). All are try-locks: they answer at once, and the caller turns a failure
 * into the status its leaf prescribes. The words have the module's own layout, because a held lock is part of
 * recorded behaviour.
 */
import { STATUS } from '../abi/status-codes.ts';

/** How a lock is wanted. @public */
export type LockMode = 'shared' | 'exclusive';

/** Shared or exclusive lock: bit 0 exclusive, readers counted from bit 1. @public */
export class SharexLock {
  word = 0;

  tryShared(): boolean {
    if ((this.word & 1) !== 0) return false;
    this.word += 2;
    return true;
  }

  tryExclusive(): boolean {
    if (this.word !== 0) return false;
    this.word = 1;
    return true;
  }

  releaseShared(): void {
    if (this.word < 2) throw new Error('shared lock released without being held');
    this.word -= 2;
  }

  releaseExclusive(): void {
    if (this.word !== 1) throw new Error('exclusive lock released without being held');
    this.word = 0;
  }
}

/** Mutual exclusion lock of one byte. @public */
export class MutexLock {
  word = 0;

  tryLock(): boolean {
    if (this.word !== 0) return false;
    this.word = 1;
    return true;
  }

  release(): void {
    if (this.word !== 1) throw new Error('mutex released without being held');
    this.word = 0;
  }
}

/** Bits of a lock with host priority; readers are counted above them. @public */
export const HP_EXCLUSIVE = 1;
export const HP_HOST_PRIORITY = 2;
export const HP_READER = 4;

/**
 * Tries the host-priority lock in `words[index]`. Returns TDX_SUCCESS, TDX_OPERAND_BUSY, or for a guest that
 * meets a host's claim TDX_OPERAND_BUSY_HOST_PRIORITY. A host that fails leaves its claim; a host that succeeds
 * clears it.
 * @public
 */
export function tryHpLock(words: Uint16Array, index: number, mode: LockMode, guest = false): bigint {
  return mode === 'shared' ? tryHpShared(words, index, guest) : tryHpExclusive(words, index, guest);
}

/** `tryHpLock` of mode shared. @public */
export function tryHpShared(words: Uint16Array, index: number, guest: boolean): bigint {
  const word = words[index]!;
  if (guest && (word & HP_HOST_PRIORITY) !== 0) return STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY;
  if ((word & HP_EXCLUSIVE) !== 0) return busy(words, index, guest);
  words[index] = (word & ~HP_HOST_PRIORITY) + HP_READER;
  return STATUS.TDX_SUCCESS;
}

/** `tryHpLock` of mode exclusive. @public */
export function tryHpExclusive(words: Uint16Array, index: number, guest: boolean): bigint {
  const word = words[index]!;
  if (guest && word === HP_HOST_PRIORITY) return STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY;
  if ((word & ~HP_HOST_PRIORITY) !== 0) return busy(words, index, guest);
  words[index] = HP_EXCLUSIVE;
  return STATUS.TDX_SUCCESS;
}

/** Turns the caller's own shared hold (always a host's) into an exclusive one; TDX_OPERAND_BUSY beside other readers. @public */
export function promoteHpLock(words: Uint16Array, index: number): bigint {
  if ((words[index]! & ~HP_HOST_PRIORITY) !== HP_READER) return busy(words, index, false);
  words[index] = HP_EXCLUSIVE;
  return STATUS.TDX_SUCCESS;
}

/** Releases a hold of `mode`; a host's claim made meanwhile stays. @public */
export function releaseHpLock(words: Uint16Array, index: number, mode: LockMode): void {
  if (mode === 'shared') releaseHpShared(words, index);
  else releaseHpExclusive(words, index);
}

/** `releaseHpLock` of mode shared. @public */
export function releaseHpShared(words: Uint16Array, index: number): void {
  const word = words[index]!;
  if ((word & HP_EXCLUSIVE) !== 0 || word < HP_READER) throw notHeld();
  words[index] = word - HP_READER;
}

/** `releaseHpLock` of mode exclusive. @public */
export function releaseHpExclusive(words: Uint16Array, index: number): void {
  const word = words[index]!;
  if ((word & HP_EXCLUSIVE) === 0) throw notHeld();
  words[index] = word & HP_HOST_PRIORITY;
}

function notHeld(): Error {
  return new Error('host-priority lock released without being held');
}

function busy(words: Uint16Array, index: number, guest: boolean): bigint {
  if (!guest) words[index]! |= HP_HOST_PRIORITY;
  return STATUS.TDX_OPERAND_BUSY;
}

/** A host-priority lock that stands alone (OP_STATE, SEPT tree, RTMR, service TD bindings). @public */
export class SharexHpLock {
  readonly words = new Uint16Array(1);

  try(mode: LockMode, guest = false): bigint {
    return tryHpLock(this.words, 0, mode, guest);
  }

  release(mode: LockMode): void {
    releaseHpLock(this.words, 0, mode);
  }
}
