/** Which slots of a VM show which pages of a file. */
import { KernelError } from '../../abi/errno.ts';
import type { Memslot } from '../memslots.ts';

/** Guest frames of a slot that show pages of the file. @internal */
export interface GuestRange {
  readonly slot: Memslot;
  readonly startGfn: number;
  readonly endGfn: number;
}

/** @internal */
export class Bindings {
  /** Ascending; no two share a page. */
  readonly #slots: Memslot[] = [];

  get size(): number {
    return this.#slots.length;
  }

  get slots(): readonly Memslot[] {
    return this.#slots;
  }

  /** The slot that shows page `index` of the file. */
  at(index: number): Memslot | undefined {
    const slot = this.#slots[this.#firstEndingAfter(index)];
    return slot !== undefined && slot.backingIndex <= index ? slot : undefined;
  }

  /** Throws EEXIST when another slot shows one of the pages. */
  add(slot: Memslot): void {
    const [other] = this.ranges(slot.backingIndex, slot.backingIndex + slot.pages);
    if (other !== undefined) {
      throw new KernelError(
        'EEXIST',
        'gmem-range-bound',
        `slot ${other.slot.id} is bound to some of these pages of the guest_memfd`,
        { slot: slot.id, other: other.slot.id, startIndex: slot.backingIndex, pages: slot.pages },
      );
    }
    this.#slots.splice(this.#firstEndingAfter(slot.backingIndex), 0, slot);
  }

  delete(slot: Memslot): void {
    this.#slots.splice(this.#slots.indexOf(slot), 1);
  }

  clear(): void {
    this.#slots.length = 0;
  }

  /** Guest frames that show pages [start, end), by page. */
  ranges(start: number, end: number): GuestRange[] {
    const found: GuestRange[] = [];
    for (let i = this.#firstEndingAfter(start); i < this.#slots.length; i++) {
      const slot = this.#slots[i]!;
      const { baseGfn, backingIndex, pages } = slot;
      if (backingIndex >= end) break;
      const startGfn = baseGfn + Math.max(start - backingIndex, 0);
      found.push({ slot, startGfn, endGfn: baseGfn + Math.min(end - backingIndex, pages) });
    }
    return found;
  }

  #firstEndingAfter(index: number): number {
    let low = 0;
    let high = this.#slots.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { backingIndex, pages } = this.#slots[middle]!;
      if (backingIndex + pages <= index) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
