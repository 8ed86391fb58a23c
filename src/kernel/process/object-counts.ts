/** How many objects of each kind are alive, so that a leak shows. */

/** @public */
export class ObjectCounts {
  readonly #counts = new Map<string, number>();

  add(kind: string): void {
    this.#counts.set(kind, this.count(kind) + 1);
  }

  remove(kind: string): void {
    const left = this.count(kind) - 1;
    if (left < 0) throw new Error(`there is no ${kind} left to go`);
    if (left === 0) this.#counts.delete(kind);
    else this.#counts.set(kind, left);
  }

  count(kind: string): number {
    return this.#counts.get(kind) ?? 0;
  }

  /** All kinds of which there are some. */
  get all(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#counts);
  }

  get total(): number {
    let total = 0;
    for (const count of this.#counts.values()) total += count;
    return total;
  }
}
