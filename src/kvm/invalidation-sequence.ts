/**
 * Keeps faults from mapping pages that are being taken away. A fault notes the count before it looks a page up, and
 * checks under the mmu lock that nothing which concerns its frame began or ended since.
 */

/** @public */
export class InvalidationSequence {
  /** Ended invalidations so far. */
  #count = 0;
  #inProgress: { readonly startGfn: number; readonly endGfn: number }[] = [];

  /** What a fault notes before it looks a page up. */
  get count(): number {
    return this.#count;
  }

  /** Blocks new mappings in [startGfn, endGfn) until `end` is called with the same range. */
  begin(startGfn: number, endGfn: number): void {
    this.#inProgress.push({ startGfn, endGfn });
  }

  end(startGfn: number, endGfn: number): void {
    const at = this.#inProgress.findIndex((range) => range.startGfn === startGfn && range.endGfn === endGfn);
    if (at === -1) throw new Error('an invalidation ended that had not begun');
    this.#inProgress.splice(at, 1);
    this.#count++;
  }

  /** True when a page looked up at `count` for frames [startGfn, endGfn) must be looked up again. */
  isStale(count: number, startGfn: number, endGfn: number): boolean {
    return count !== this.#count || this.isUnderWay(startGfn, endGfn);
  }

  /** True while an invalidation of one of the frames has begun and not ended. */
  isUnderWay(startGfn: number, endGfn: number): boolean {
    return this.#inProgress.some((range) => range.startGfn < endGfn && startGfn < range.endGfn);
  }
}
