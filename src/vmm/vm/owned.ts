/** What user space has taken and gives back, the last first. */

/** @public */
export class Owned {
  readonly #releases: (() => Promise<void>)[] = [];

  /** Has `release` called at the end. */
  add(release: () => Promise<void>): void {
    this.#releases.push(release);
  }

  /** Gives everything back. What fails does not keep the rest; the first failure is thrown at the end. */
  async release(): Promise<void> {
    const failures: unknown[] = [];
    for (let next = this.#releases.pop(); next !== undefined; next = this.#releases.pop()) {
      await next().catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }
}
