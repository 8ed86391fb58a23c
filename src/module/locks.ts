/**
 * The module's locks (module facts 13). All are try-locks: they answer at once, and the caller turns a failure
 * into the status its leaf prescribes. The words have the module's own layout, because a held lock is part of
 * recorded behaviour.
 */

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
