/** The areas of an address space, ascending and apart from each other. */
import type { MemoryArea } from './memory-area.ts';

/** @public */
export class AreaList {
  readonly #areas: MemoryArea[] = [];

  get all(): readonly MemoryArea[] {
    return this.#areas;
  }

  /** The area that holds `address`. */
  at(address: number): MemoryArea | undefined {
    const area = this.#areas[this.#after(address) - 1];
    return area !== undefined && address < area.end ? area : undefined;
  }

  /** Areas that share addresses with [start, end), ascending. */
  within(start: number, end: number): readonly MemoryArea[] {
    const first = this.#after(start);
    const from = first > 0 && this.#areas[first - 1]!.end > start ? first - 1 : first;
    let to = from;
    while (to < this.#areas.length && this.#areas[to]!.start < end) to++;
    return this.#areas.slice(from, to);
  }

  /** Whether areas cover all of [start, end). */
  covers(start: number, end: number): boolean {
    let next = start;
    for (const area of this.within(start, end)) {
      if (area.start > next) return false;
      next = area.end;
    }
    return next >= end;
  }

  insert(area: MemoryArea): void {
    this.#areas.splice(this.#after(area.start), 0, area);
  }

  /** False where it is not in the list. */
  delete(area: MemoryArea): boolean {
    const index = this.#areas.indexOf(area);
    if (index >= 0) this.#areas.splice(index, 1);
    return index >= 0;
  }

  /** Highest start of a gap of `lengthBytes` that ends at or below `end`; null where there is none. */
  gapBelow(lengthBytes: number, end: number): number | null {
    let top = end;
    for (let index = this.#areas.length - 1; index >= 0; index--) {
      const area = this.#areas[index]!;
      if (top - area.end >= lengthBytes) break;
      top = area.start;
    }
    return top - lengthBytes >= LOWEST_ADDRESS ? top - lengthBytes : null;
  }

  /** Index of the first area that starts above `address`. */
  #after(address: number): number {
    let low = 0;
    let high = this.#areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#areas[middle]!.start <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Default of vm.mmap_min_addr: unprivileged processes map nothing below. @public */
export const LOWEST_ADDRESS = 0x1_0000;
