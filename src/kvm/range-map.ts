/** Values over ranges of page indexes; neighbours with the same value are one range. */

interface ValueRange<T> {
  readonly start: number;
  readonly end: number;
  readonly value: T;
}

/** Ranges without a value are not stored. Values are compared by identity. @public */
export class RangeMap<T> {
  /** Ascending, disjoint. */
  #ranges: ValueRange<T>[] = [];

  /** Number of ranges that have a value. */
  get size(): number {
    return this.#ranges.length;
  }

  get(index: number): T | undefined {
    const range = this.#ranges[this.#firstEndingAfter(index)];
    return range !== undefined && range.start <= index ? range.value : undefined;
  }

  /** True when every index of [start, end) has `value`, or none has a value and `value` is undefined. */
  isUniform(start: number, end: number, value: T | undefined): boolean {
    let at = start;
    for (let i = this.#firstEndingAfter(start); at < end; i++) {
      const range = this.#ranges[i];
      if (range === undefined || range.start >= end) return value === undefined;
      if (range.start > at && value !== undefined) return false;
      if (range.value !== value) return false;
      at = range.end;
    }
    return true;
  }

  /** Gives [start, end) the value; undefined takes values away. */
  set(start: number, end: number, value: T | undefined): void {
    const from = this.#firstEndingAfter(start);
    let to = from;
    while (to < this.#ranges.length && this.#ranges[to]!.start < end) to++;
    const first = this.#ranges[from];
    const last = this.#ranges[to - 1];
    const pieces: ValueRange<T>[] = [];
    if (from < to && first!.start < start) pieces.push({ ...first!, end: start });
    if (value !== undefined) pieces.push({ start, end, value });
    if (from < to && last!.end > end) pieces.push({ ...last!, start: end });
    const before = this.#ranges[from - 1];
    const after = this.#ranges[to];
    const merged = merge([...(before ? [before] : []), ...pieces, ...(after ? [after] : [])]);
    const removeFrom = before === undefined ? from : from - 1;
    const removeTo = after === undefined ? to : to + 1;
    this.#ranges.splice(removeFrom, removeTo - removeFrom, ...merged);
  }

  [Symbol.iterator](): Iterator<ValueRange<T>> {
    return this.#ranges[Symbol.iterator]();
  }

  #firstEndingAfter(index: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ranges[middle]!.end <= index) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Joins neighbours that touch and have the same value. */
function merge<T>(ranges: readonly ValueRange<T>[]): ValueRange<T>[] {
  const merged: ValueRange<T>[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && last.end === range.start && last.value === range.value) {
      merged[merged.length - 1] = { ...last, end: range.end };
    } else merged.push(range);
  }
  return merged;
}
