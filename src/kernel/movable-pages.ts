/** Allocations the kernel may move, so that a contiguous range can be made of the place they are in. */
import { BLOCK_PAGES } from './split-blocks.ts';

/** @internal */
export interface MovableAllocation {
  readonly pfn: number;
  readonly order: number;
}

/** @internal */
export class MovablePages {
  /** Order by first page frame, per 4 MiB block; no allocation spans two blocks. */
  readonly #blocks = new Map<number, Map<number, number>>();

  add(pfn: number, order: number): void {
    const block = Math.floor(pfn / BLOCK_PAGES);
    const inBlock = this.#blocks.get(block) ?? new Map<number, number>();
    this.#blocks.set(block, inBlock.set(pfn, order));
  }

  /** Forgets the allocation that starts at `pfn`, if there is one. */
  forget(pfn: number): void {
    const block = Math.floor(pfn / BLOCK_PAGES);
    const inBlock = this.#blocks.get(block);
    inBlock?.delete(pfn);
    if (inBlock?.size === 0) this.#blocks.delete(block);
  }

  /** The allocation that holds page `pfn`, if there is one, stays where it is. */
  pin(pfn: number): void {
    for (const [start, order] of this.#blocks.get(Math.floor(pfn / BLOCK_PAGES)) ?? []) {
      if (start <= pfn && pfn < start + 2 ** order) this.forget(start);
    }
  }

  /** State for a saved machine. */
  save() {
    return this.#blocks;
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<MovablePages['save']>): void {
    for (const [block, inBlock] of saved) this.#blocks.set(block, inBlock);
  }

  /** Allocations wholly inside `[pfn, pfn + pages)`, ascending. */
  within(pfn: number, pages: number): readonly MovableAllocation[] {
    if (this.#blocks.size === 0) return [];
    const found: MovableAllocation[] = [];
    const last = Math.floor((pfn + pages - 1) / BLOCK_PAGES);
    for (let block = Math.floor(pfn / BLOCK_PAGES); block <= last; block++) {
      for (const [start, order] of this.#blocks.get(block) ?? []) {
        if (start >= pfn && start + 2 ** order <= pfn + pages) found.push({ pfn: start, order });
      }
    }
    return found.sort((a, b) => a.pfn - b.pfn);
  }
}
