/** Memory for PAMTs set aside at boot, when the module is initialised later: nothing can fragment it until then. */
import { PAGE_4K } from '../abi/address.ts';
import type { PageAllocator } from './allocator.ts';
import type { TdxMemoryBlock } from './memlist.ts';
import { pamtBytes, pamtNode, tdmrPamtSizes } from './pamt-alloc.ts';
import { fillOutTdmrs } from './tdmr.ts';

/** Bytes of an entry in all modules so far: the module that is loaded has not been asked yet. */
const ENTRY_SIZE = 16;
const ENTRY_SIZES = {
  pamt4kEntrySize: ENTRY_SIZE,
  pamt2mEntrySize: ENTRY_SIZE,
  pamt1gEntrySize: ENTRY_SIZE,
};

/** @internal */
export class PamtReservation {
  readonly #allocator: PageAllocator;
  #chunks: readonly { readonly pfn: number; readonly pages: number }[] = [];

  constructor(allocator: PageAllocator) {
    this.#allocator = allocator;
  }

  /** Pages set aside. */
  get pages(): number {
    return this.#chunks.reduce((sum, { pages }) => sum + pages, 0);
  }

  /** Sets memory aside for the TDMRs that `memlist` needs. Returns false, with nothing kept, where there is not enough. */
  reserve(memlist: readonly TdxMemoryBlock[], dynamicPamt: boolean): boolean {
    for (const tdmr of memlist.length === 0 ? [] : fillOutTdmrs(memlist, Infinity, () => {})) {
      const pages = pamtBytes(tdmrPamtSizes(tdmr.end - tdmr.start, ENTRY_SIZES, dynamicPamt)) / PAGE_4K;
      const node = pamtNode(tdmr, memlist) ?? 0;
      const pfn = this.#allocator.allocContig(pages, { node, purpose: 'pamt-reservation' });
      if (pfn === null) {
        this.release();
        return false;
      }
      this.#chunks = [...this.#chunks, { pfn, pages }];
    }
    return true;
  }

  /** Gives the memory back, for the PAMTs that are allocated next. */
  release(): void {
    for (const { pfn, pages } of this.#chunks) this.#allocator.freePages(pfn, pages);
    this.#chunks = [];
  }

  /** State for a saved machine. */
  save() {
    return { chunks: this.#chunks };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<PamtReservation['save']>): void {
    this.#chunks = saved.chunks;
  }
}
