/** Memory lent to somebody outside the kernel: taken out of use in as large chunks as there are, and taken back. */
import type { AllocOptions } from './allocation.ts';
import { MAX_ORDER, type PageAllocator } from './allocator.ts';

/** @public */
export class Balloon {
  readonly #allocator: PageAllocator;
  /** Order by first page frame, in the order in which they were taken. */
  readonly #chunks = new Map<number, number>();
  #pages = 0;

  constructor(allocator: PageAllocator) {
    this.#allocator = allocator;
  }

  /** Pages in the balloon. */
  get pages(): number {
    return this.#pages;
  }

  /** Takes up to `pages` pages, on `node` only when it is given. Returns how many there were. */
  inflate(pages: number, node?: number): number {
    const options: AllocOptions = {
      purpose: 'balloon',
      nonTdxOk: true,
      ...(node === undefined ? {} : { node, fallback: false }),
    };
    let taken = 0;
    for (let order = MAX_ORDER; order >= 0; ) {
      const pfn = taken + 2 ** order <= pages ? this.#allocator.allocPages(order, options) : null;
      if (pfn === null) {
        order--;
        continue;
      }
      this.#chunks.set(pfn, order);
      this.#allocator.balloon(pfn, 2 ** order, true);
      taken += 2 ** order;
    }
    this.#pages += taken;
    return taken;
  }

  /** Gives back chunks, the last first, until at least `pages` pages or all are back. Returns how many. */
  deflate(pages: number): number {
    let given = 0;
    for (const [pfn, order] of [...this.#chunks].reverse()) {
      if (given >= pages) break;
      this.#chunks.delete(pfn);
      this.#allocator.balloon(pfn, 2 ** order, false);
      this.#allocator.freePages(pfn, 2 ** order);
      given += 2 ** order;
    }
    this.#pages -= given;
    return given;
  }

  /** State for a saved machine. */
  save() {
    return { chunks: this.#chunks, pages: this.#pages };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<Balloon['save']>): void {
    for (const [pfn, order] of saved.chunks) this.#chunks.set(pfn, order);
    this.#pages = saved.pages;
  }
}
