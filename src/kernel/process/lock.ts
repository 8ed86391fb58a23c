/**
 * Locks whose holders may sleep. Whoever asks first gets the lock first; one that is free costs no more than the
 * microtask of the promise.
 */

/** A mutex. @public */
export class SleepLock {
  #held = false;
  readonly #waiting: (() => void)[] = [];

  get isHeld(): boolean {
    return this.#held;
  }

  /** Takes the lock when it is free. */
  tryAcquire(): boolean {
    if (this.#held) return false;
    this.#held = true;
    return true;
  }

  async acquire(): Promise<void> {
    if (!this.tryAcquire()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Hands the lock to whoever has waited longest. Throws Error where nobody holds it. */
  release(): void {
    if (!this.#held) throw new Error('a lock was released that nobody held');
    const next = this.#waiting.shift();
    if (next === undefined) this.#held = false;
    else next();
  }

  /** Does `work` with the lock held. */
  async run<T>(work: () => T | Promise<T>): Promise<T> {
    await this.acquire();
    try {
      return await work();
    } finally {
      this.release();
    }
  }
}

/** A lock that many readers or one writer hold. A waiting writer keeps later readers out. @public */
export class ReadWriteLock {
  #readers = 0;
  #writing = false;
  readonly #waiting: { readonly write: boolean; readonly wake: () => void }[] = [];

  /** Whether somebody reads or writes. */
  get isHeld(): boolean {
    return this.#writing || this.#readers > 0;
  }

  /** Whether somebody writes. */
  get isWriting(): boolean {
    return this.#writing;
  }

  async acquireRead(): Promise<void> {
    if (this.#writing || this.#waiting.length > 0) await this.#queue(false);
    else this.#readers++;
  }

  releaseRead(): void {
    if (this.#readers === 0) throw new Error('a lock was released that nobody read under');
    this.#readers--;
    this.#wake();
  }

  async acquireWrite(): Promise<void> {
    if (this.isHeld || this.#waiting.length > 0) await this.#queue(true);
    else this.#writing = true;
  }

  releaseWrite(): void {
    if (!this.#writing) throw new Error('a lock was released that nobody wrote under');
    this.#writing = false;
    this.#wake();
  }

  /** Does `work` as a reader. */
  async read<T>(work: () => T | Promise<T>): Promise<T> {
    await this.acquireRead();
    try {
      return await work();
    } finally {
      this.releaseRead();
    }
  }

  /** Does `work` as the writer. */
  async write<T>(work: () => T | Promise<T>): Promise<T> {
    await this.acquireWrite();
    try {
      return await work();
    } finally {
      this.releaseWrite();
    }
  }

  #queue(write: boolean): Promise<void> {
    return new Promise((wake) => this.#waiting.push({ write, wake }));
  }

  /** Lets in the first who waits, and after a reader those that follow it up to the next writer. */
  #wake(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      if (this.#writing || (first.write && this.#readers > 0)) return;
      this.#waiting.shift();
      if (first.write) this.#writing = true;
      else this.#readers++;
      first.wake();
    }
  }
}
