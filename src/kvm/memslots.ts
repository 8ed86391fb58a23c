/** Memory slots of a VM: which guest frames are backed by which user memory and which guest_memfd. */
import type { PrivateBacking } from './private-backing.ts';

/** One slot; immutable but for the file, which is gone when its last reference is. @public */
export interface Memslot {
  readonly id: number;
  readonly baseGfn: number;
  readonly pages: number;
  readonly flags: number;
  /** Address of the first page in the process that made the slot. */
  readonly userspaceAddress: number;
  /** What backs private memory; null for nothing, or after the last reference to the file was closed. */
  backing: PrivateBacking | null;
  /** Page index in the backing that `baseGfn` has. */
  readonly backingIndex: number;
  /** Shared accesses are served from the backing too. */
  readonly isBackingOnly: boolean;
}

/** The slots of one address space. @public */
export class Memslots {
  /** Counts changes, so that a fault can tell that slots changed under it. */
  generation = 0;
  readonly #byId = new Map<number, Memslot>();
  /** Ascending by baseGfn. */
  readonly #byGfn: Memslot[] = [];
  /** Slots being deleted or moved: no new mappings are made for them. */
  readonly #invalid = new Set<Memslot>();

  get size(): number {
    return this.#byId.size;
  }

  get(id: number): Memslot | undefined {
    return this.#byId.get(id);
  }

  /** The slot that holds `gfn`. */
  find(gfn: number): Memslot | undefined {
    const slot = this.#byGfn[this.#countUpTo(gfn) - 1];
    return slot !== undefined && gfn < slot.baseGfn + slot.pages ? slot : undefined;
  }

  /** Slots that share a frame with [startGfn, endGfn), ascending. */
  overlapping(startGfn: number, endGfn: number): readonly Memslot[] {
    const from = this.#countUpTo(startGfn);
    const to = this.#countUpTo(endGfn - 1);
    const before = this.#byGfn[from - 1];
    const reaches = before !== undefined && startGfn < before.baseGfn + before.pages;
    return this.#byGfn.slice(reaches ? from - 1 : from, to);
  }

  [Symbol.iterator](): Iterator<Memslot> {
    return this.#byGfn[Symbol.iterator]();
  }

  /** Adds a slot, or puts it in the place of the one with its id. */
  set(slot: Memslot): void {
    this.#remove(slot.id);
    this.#byId.set(slot.id, slot);
    this.#byGfn.splice(this.#countUpTo(slot.baseGfn), 0, slot);
    this.generation++;
  }

  delete(id: number): void {
    this.#remove(id);
    this.generation++;
  }

  /** Lets faults in the slot be tried again later instead of served. */
  markInvalid(slot: Memslot): void {
    this.#invalid.add(slot);
    this.generation++;
  }

  isInvalid(slot: Memslot): boolean {
    return this.#invalid.has(slot);
  }

  /** Slots that begin at `gfn` or below. */
  #countUpTo(gfn: number): number {
    let low = 0;
    let high = this.#byGfn.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#byGfn[middle]!.baseGfn <= gfn) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #remove(id: number): void {
    const slot = this.#byId.get(id);
    if (slot === undefined) return;
    this.#byId.delete(id);
    this.#invalid.delete(slot);
    this.#byGfn.splice(this.#countUpTo(slot.baseGfn) - 1, 1);
  }
}
