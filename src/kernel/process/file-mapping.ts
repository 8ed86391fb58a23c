/** Who maps the pages of a file: what the file's side needs to take pages away from user space. */
import { PAGE_4K } from '../../abi/address.ts';
import type { MemoryArea } from './memory-area.ts';

/** All areas that map one inode, in every process. The inode owns it and sets `area.mapping` to it. @public */
export class FileMapping {
  readonly #areas = new Set<MemoryArea>();

  add(area: MemoryArea): void {
    this.#areas.add(area);
  }

  remove(area: MemoryArea): void {
    this.#areas.delete(area);
  }

  get areas(): ReadonlySet<MemoryArea> {
    return this.#areas;
  }

  /** Whether any process has an area over it, with or without pages. */
  get isMapped(): boolean {
    return this.#areas.size > 0;
  }

  /**
   * Takes pages [startIndex, endIndex) of the file out of every page table, whoever else maps user addresses (KVM's shared
   * memory) told. Accesses fault again. Private copies stay, but for a file that ends before them ('everything').
   */
  async unmap(
    startIndex: number,
    endIndex: number,
    what: 'file-pages' | 'everything' = 'file-pages',
  ): Promise<void> {
    // The set itself: areas that are split off others meanwhile are reached too.
    for (const area of this.#areas) {
      const first = area.start + (startIndex - area.pageOffset) * PAGE_4K;
      const start = Math.max(area.start, first);
      const end = Math.min(area.end, first + (endIndex - startIndex) * PAGE_4K);
      if (start < end) await area.space.zap(start, end, what);
    }
  }

  /** How many page table entries map pages [startIndex, endIndex). */
  countMapped(startIndex: number, endIndex: number): number {
    let count = 0;
    for (const area of this.#areas) {
      const base = area.start / PAGE_4K - area.pageOffset;
      const from = Math.max(area.pageOffset, startIndex);
      const to = Math.min(area.pageOffset + (area.end - area.start) / PAGE_4K, endIndex);
      for (let index = from; index < to; index++) if (area.space.pfnAt(base + index) !== null) count++;
    }
    return count;
  }
}
