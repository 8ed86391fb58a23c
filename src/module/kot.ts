/** The key ownership table and the write-back table, which together govern the reuse of private KeyIDs. */
import { MutexLock, SharexLock } from './locks.ts';

/** Private KeyIDs a module can manage (module facts 0). @public */
export const MAX_HKIDS = 2048;
/** Packages a module can manage (module facts 0). @public */
export const MAX_PKGS = 8;

/** States of a KeyID (module facts 5). @public */
export const HKID_STATE = {
  FREE: 0,
  ASSIGNED: 1,
  /** Its TD is blocked; caches may still hold its lines. */
  FLUSHED: 2,
  /** The module's own, given with SYS.CONFIG. */
  RESERVED: 3,
} as const;

/** @public */
export class KeyOwnershipTable {
  readonly lock = new SharexLock();
  /** HKID_STATE by KeyID. */
  readonly states = new Uint8Array(MAX_HKIDS);
  /** Packages that still have to write back, one bit each, by KeyID. */
  readonly pendingPackages = new Uint32Array(MAX_HKIDS);

  /** State for a saved machine. */
  save() {
    return { lock: this.lock.word, states: this.states, pendingPackages: this.pendingPackages };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<KeyOwnershipTable['save']>): void {
    this.lock.word = saved.lock;
    this.states.set(saved.states);
    this.pendingPackages.set(saved.pendingPackages);
  }
}

/** One package's progress through PHYMEM.CACHE.WB. @public */
export class WriteBackEntry {
  readonly lock = new MutexLock();
  /** Cache sub-blocks written so far in an interrupted cycle; 0 when none is under way. */
  interruptedAt = 0;
  /** KeyIDs that were flushed when the cycle began: only these are done when it ends. */
  readonly flushed = new Uint8Array(MAX_HKIDS);

  /** State for a saved machine. */
  save() {
    return { lock: this.lock.word, interruptedAt: this.interruptedAt, flushed: this.flushed };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<WriteBackEntry['save']>): void {
    this.lock.word = saved.lock;
    this.interruptedAt = saved.interruptedAt;
    this.flushed.set(saved.flushed);
  }
}
