/** Allocator of the KeyIDs that guests get (Linux host rules 1.10): the lowest free one first. */
import { KernelError } from '../abi/errno.ts';

/** @public */
export class KeyIdPool {
  /** First KeyID of the pool. */
  readonly start: number;
  /** Number of KeyIDs, as the misc controller shows it in `misc.capacity`. */
  readonly capacity: number;
  readonly #used: Uint8Array;
  #current = 0;
  /** No free KeyID lies below this index. */
  #hint = 0;

  constructor(start: number, capacity: number) {
    this.start = start;
    this.capacity = capacity;
    this.#used = new Uint8Array(capacity);
  }

  /** KeyIDs in use, as in `misc.current`. */
  get current(): number {
    return this.#current;
  }

  /** Takes a KeyID. Throws ENOSPC when none is left. */
  alloc(): number {
    while (this.#hint < this.capacity && this.#used[this.#hint] === 1) this.#hint++;
    if (this.#hint === this.capacity) {
      throw new KernelError(
        'ENOSPC',
        'keyids-exhausted',
        `all ${this.capacity} guest KeyIDs [${this.start}, ${this.start + this.capacity}) are in use`,
        { start: this.start, end: this.start + this.capacity, capacity: this.capacity },
      );
    }
    this.#used[this.#hint] = 1;
    this.#current++;
    return this.start + this.#hint;
  }

  /** Gives a KeyID back. */
  free(keyId: number): void {
    const index = keyId - this.start;
    if (this.#used[index] !== 1) throw new Error(`KeyID ${keyId} freed without being allocated`);
    this.#used[index] = 0;
    this.#current--;
    this.#hint = Math.min(this.#hint, index);
  }

  /** State for a saved machine. */
  save() {
    return {
      start: this.start,
      capacity: this.capacity,
      used: this.#used,
      current: this.#current,
      hint: this.#hint,
    };
  }

  /** The pool that `save` was called on, again. */
  static restored(saved: ReturnType<KeyIdPool['save']>): KeyIdPool {
    const pool = new KeyIdPool(saved.start, saved.capacity);
    pool.#used.set(saved.used);
    pool.#current = saved.current;
    pool.#hint = saved.hint;
    return pool;
  }
}
