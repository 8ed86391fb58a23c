/** A line that says how far something has come: only on a terminal, and gone when it is through. */

/** Milliseconds between two updates. */
const PERIOD_MS = 100;
const BAR = 24;

/** @internal */
export class Progress {
  readonly #isShown = process.stderr.isTTY === true;
  #shownAt = 0;

  /** `done` of `total`; `what` is being done. */
  show(done: number, total: number, what: string): void {
    const now = performance.now();
    if (!this.#isShown || now - this.#shownAt < PERIOD_MS) return;
    this.#shownAt = now;
    const filled = Math.round((done / Math.max(total, 1)) * BAR);
    process.stderr.write(`\r\x1b[K${'█'.repeat(filled)}${'░'.repeat(BAR - filled)} ${done}/${total} ${what}`);
  }

  end(): void {
    if (this.#shownAt > 0) process.stderr.write('\r\x1b[K');
    this.#shownAt = 0;
  }
}
