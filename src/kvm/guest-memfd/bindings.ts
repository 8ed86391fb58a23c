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
  /** By the first page; no two share a page. */
  readonly #slots: Memslot[] = [];

  get size(): number {
    return this.#slots.length;
  }

  get slots(): readonly Memslot[] {
    return this.#slots;
  }

  /** The slot that shows page `index` of the file. */
  at(index: number): Memslot | undefined {
    return this.#slots.find((slot) => slot.backingIndex <= index && index < slot.backingIndex + slot.pages);
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
    this.#slots.push(slot);
    this.#slots.sort((a, b) => a.backingIndex - b.backingIndex);
  }

  delete(slot: Memslot): void {
    this.#slots.splice(this.#slots.indexOf(slot), 1);
  }

  clear(): void {
    this.#slots.length = 0;
  }

  /** Guest frames that show pages [start, end), by page. */
  ranges(start: number, end: number): GuestRange[] {
    return this.#slots
      .filter(({ backingIndex, pages }) => backingIndex < end && start < backingIndex + pages)
      .map((slot) => {
        const { baseGfn, backingIndex, pages } = slot;
        return {
          slot,
          startGfn: baseGfn + Math.max(start - backingIndex, 0),
          endGfn: baseGfn + Math.min(end - backingIndex, pages),
        };
      });
  }
}
