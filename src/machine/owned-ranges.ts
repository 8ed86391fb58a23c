import type { AddressRange } from '../abi/address.ts';

interface OwnedRange extends AddressRange {
  start: number;
  end: number;
  readonly keyId: number;
}

/**
 * Disjoint ranges of addresses with an owning KeyID, ascending; addresses in no range belong to KeyID 0.
 * Equal neighbours merge, so growing one range step by step (as PAMT initialisation does) stays one entry.
 * @internal
 */
export class OwnedRanges {
  #ranges: OwnedRange[] = [];

  /** Owner of the byte at `address`. */
  at(address: number): number {
    const range = this.#ranges[this.#firstEndingAfter(address)];
    return range !== undefined && range.start <= address ? range.keyId : 0;
  }

  /** Makes `keyId` the owner of `[start, end)`. */
  set(start: number, end: number, keyId: number): void {
    if (start >= end) return;
    const ranges = this.#ranges;
    const first = this.#firstEndingAfter(start);
    const before = ranges[first - 1];
    const next = ranges[first];
    // The common step: extend the preceding range into free space.
    if (
      before !== undefined &&
      before.end === start &&
      before.keyId === keyId &&
      (next === undefined || next.start > end)
    ) {
      before.end = end;
      return;
    }
    let last = first;
    while (last < ranges.length && ranges[last]!.start < end) last++;
    const pieces: OwnedRange[] = [];
    const head = ranges[first];
    const tail = ranges[last - 1];
    if (last > first && head!.start < start)
      pieces.push({ start: head!.start, end: start, keyId: head!.keyId });
    if (keyId !== 0) pieces.push({ start, end, keyId });
    if (last > first && tail!.end > end) pieces.push({ start: end, end: tail!.end, keyId: tail!.keyId });
    ranges.splice(first, last - first, ...pieces);
    this.#mergeAround(first - 1, first + pieces.length);
  }

  list(): readonly (AddressRange & { readonly keyId: number })[] {
    return this.#ranges;
  }

  /** State for a saved machine. */
  save() {
    return this.#ranges;
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<OwnedRanges['save']>): void {
    this.#ranges = saved.map((range) => ({ ...range }));
  }

  #mergeAround(from: number, to: number): void {
    for (let i = Math.max(from, 0); i < Math.min(to, this.#ranges.length - 1); ) {
      const a = this.#ranges[i]!;
      const b = this.#ranges[i + 1]!;
      if (a.end === b.start && a.keyId === b.keyId) {
        a.end = b.end;
        this.#ranges.splice(i + 1, 1);
      } else i++;
    }
  }

  /** Index of the first range whose end is above `address`. */
  #firstEndingAfter(address: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ranges[middle]!.end > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
