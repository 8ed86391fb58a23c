/** Memory that the host's own programs have: allocations by name, and the pinned pages of long uptimes. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import type { AllocOptions } from '../../../kernel/allocation.ts';
import { MAX_ORDER, type PageAllocator } from '../../../kernel/allocator.ts';
import { fragment } from '../../../kernel/fragment.ts';

/** @internal */
export class HostMemory {
  readonly #allocator: PageAllocator;
  /** Order by first page frame, by name of the allocation. */
  readonly #held = new Map<string, Map<number, number>>();
  #pinned: number[] = [];
  /** 4 KiB pages held and pinned. */
  pages = 0;

  constructor(allocator: PageAllocator) {
    this.#allocator = allocator;
    allocator.onMigrate = (from, to, order) => this.#moved(from, to, order);
  }

  has(name: string): boolean {
    return this.#held.has(name);
  }

  /** Pages free on `node`, or on all. */
  freePages(node: number | undefined): number {
    const accounts = this.#allocator
      .accounts()
      .filter((account) => node === undefined || account.node === node);
    return accounts.reduce((sum, { free }) => sum + free, 0);
  }

  /** Takes `pages` under `name`. Throws ENOMEM with nothing taken. */
  take(name: string, pages: number, options: Omit<AllocOptions, 'purpose'>): void {
    const held = new Map<number, number>();
    let order = MAX_ORDER;
    for (let rest = pages; rest > 0; ) {
      while (2 ** order > rest) order--;
      const pfn = this.#allocator.allocPages(order, { ...options, purpose: 'host' });
      if (pfn !== null) {
        held.set(pfn, order);
        rest -= 2 ** order;
      } else if (order > 0) order--;
      else {
        for (const [first, size] of held) this.#allocator.freePages(first, 2 ** size);
        throw new KernelError(
          'ENOMEM',
          'host-memory',
          `${pages - rest} of ${pages} pages are free for '${name}'`,
          {
            wanted: pages * PAGE_4K,
            found: (pages - rest) * PAGE_4K,
          },
        );
      }
    }
    this.#held.set(name, held);
    this.pages += pages;
  }

  /** Gives back what `name` has. */
  free(name: string): void {
    for (const [pfn, order] of this.#held.get(name) ?? []) {
      this.#allocator.freePages(pfn, 2 ** order);
      this.pages -= 2 ** order;
    }
    this.#held.delete(name);
  }

  /** Pins pages in a share of what is free. Returns how many. */
  fragment(share: number, node: number | undefined, seed: bigint): number {
    const pinned = fragment(this.#allocator, node === undefined ? { share, seed } : { share, seed, node });
    this.#pinned = [...this.#pinned, ...pinned];
    this.pages += pinned.length;
    return pinned.length;
  }

  /** Gives pinned pages back, as when those who pinned them end. */
  compact(): void {
    for (const pfn of this.#pinned) this.#allocator.freePages(pfn, 1);
    this.pages -= this.#pinned.length;
    this.#pinned = [];
  }

  #moved(from: number, to: number, order: number): void {
    for (const held of this.#held.values()) {
      if (!held.delete(from)) continue;
      held.set(to, order);
      return;
    }
  }
}
