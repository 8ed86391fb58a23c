/** Memory attributes of a VM: ranges of guest frames with a value that is not 0. Neighbours of one value are one range. */

interface AttributeRange {
  readonly start: number;
  readonly end: number;
  readonly value: bigint;
}

/** @public */
export const ATTRIBUTE_PRIVATE = 1n << 3n;

/** @public */
export class MemoryAttributes {
  /** Ascending, disjoint, values other than 0, neighbours differ. */
  #ranges: AttributeRange[] = [];

  get rangeCount(): number {
    return this.#ranges.length;
  }

  /** Attributes of a frame. */
  get(gfn: number): bigint {
    const range = this.#ranges[this.#firstEndingAfter(gfn)];
    return range !== undefined && range.start <= gfn ? range.value : 0n;
  }

  isPrivate(gfn: number): boolean {
    return (this.get(gfn) & ATTRIBUTE_PRIVATE) !== 0n;
  }

  /** True when every frame of [start, end) has `value`. */
  isUniform(start: number, end: number, value: bigint): boolean {
    let at = start;
    for (let i = this.#firstEndingAfter(start); at < end; i++) {
      const range = this.#ranges[i];
      const gapEnd = Math.min(range?.start ?? end, end);
      if (gapEnd > at && value !== 0n) return false;
      if (range === undefined || range.start >= end) return true;
      if (range.value !== value) return false;
      at = range.end;
    }
    return true;
  }

  /** Gives [start, end) the attributes `value`. */
  set(start: number, end: number, value: bigint): void {
    const from = this.#firstEndingAfter(start);
    let to = from;
    const pieces: AttributeRange[] = [];
    const add = (piece: AttributeRange): void => {
      const last = pieces.at(-1);
      if (piece.start >= piece.end || piece.value === 0n) return;
      if (last?.end === piece.start && last.value === piece.value) {
        pieces[pieces.length - 1] = { ...last, end: piece.end };
      } else pieces.push(piece);
    };
    const before = this.#ranges[from - 1];
    const first = this.#ranges[from];
    if (before !== undefined) add(before);
    if (first !== undefined) add({ ...first, end: Math.min(first.end, start) });
    add({ start, end, value });
    while (to < this.#ranges.length && this.#ranges[to]!.start < end) to++;
    const last = this.#ranges[to - 1];
    if (last !== undefined && to > from) add({ ...last, start: Math.max(last.start, end) });
    const after = this.#ranges[to];
    if (after !== undefined) add(after);
    const removedFrom = before === undefined ? from : from - 1;
    const removedTo = after === undefined ? to : to + 1;
    this.#ranges.splice(removedFrom, removedTo - removedFrom, ...pieces);
  }

  /** Index of the first range that ends after `gfn`. */
  #firstEndingAfter(gfn: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ranges[middle]!.end <= gfn) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
