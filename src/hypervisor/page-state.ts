/** Who owns and who borrows every page, as the hypervisor records it: sparse, by 2 MiB chunks that were ever touched. */

/**
 * What a page is to one component. POISON is a guest's only: the host took the page away by force.
 * @public
 */
export const PAGE_STATE = { OWNED: 0, SHARED_OWNED: 1, SHARED_BORROWED: 2, NOPAGE: 3, POISON: 4 } as const;

/** @public */
export type PageState = (typeof PAGE_STATE)[keyof typeof PAGE_STATE];

/** Names of the states by number. @public */
export const PAGE_STATE_NAMES = ['OWNED', 'SHARED_OWNED', 'SHARED_BORROWED', 'NOPAGE', 'POISON'] as const;

const { OWNED, NOPAGE } = PAGE_STATE;
const PAGES = 512;

interface Chunk {
  readonly host: Uint8Array;
  readonly hyp: Uint8Array;
  /** How many guests' pages borrow the page from the host. */
  readonly guestShares: Uint32Array;
  /** How many uses of its own the hypervisor has for a page that it borrows. */
  readonly pins: Uint16Array;
  /** Annotation of a page donated to a guest: handle of the VM, 0 for none, and frame in the guest. */
  readonly guest: Uint16Array;
  readonly gfn: Float64Array;
}

/** A page that was given to a guest. @public */
export interface GuestOwner {
  readonly handle: number;
  readonly gfn: number;
}

/** @public */
export class PageStates {
  readonly #chunks = new Map<number, Chunk>();
  #carveStart = 0;
  #carveEnd = 0;

  /** Makes `[startPfn, endPfn)` the hypervisor's own; it costs nothing per page. */
  carveOut(startPfn: number, endPfn: number): void {
    this.#carveStart = startPfn;
    this.#carveEnd = endPfn;
  }

  /** The host's view of a page of memory. */
  host(pfn: number): PageState {
    const chunk = this.#chunks.get(Math.floor(pfn / PAGES));
    if (chunk !== undefined) return chunk.host[pfn % PAGES] as PageState;
    return this.#isCarved(pfn) ? NOPAGE : OWNED;
  }

  /** The hypervisor's view. */
  hyp(pfn: number): PageState {
    const chunk = this.#chunks.get(Math.floor(pfn / PAGES));
    if (chunk !== undefined) return chunk.hyp[pfn % PAGES] as PageState;
    return this.#isCarved(pfn) ? OWNED : NOPAGE;
  }

  guestShares(pfn: number): number {
    return this.#chunks.get(Math.floor(pfn / PAGES))?.guestShares[pfn % PAGES] ?? 0;
  }

  pins(pfn: number): number {
    return this.#chunks.get(Math.floor(pfn / PAGES))?.pins[pfn % PAGES] ?? 0;
  }

  /** Which guest the host gave the page to, while the host has no access to it. */
  guestOwner(pfn: number): GuestOwner | undefined {
    const chunk = this.#chunks.get(Math.floor(pfn / PAGES));
    const handle = chunk?.guest[pfn % PAGES] ?? 0;
    return handle === 0 ? undefined : { handle, gfn: chunk!.gfn[pfn % PAGES]! };
  }

  /** True when the host may use every page of the chunk: 2 MiB, by number. */
  hostMayUseAll(index: number): boolean {
    const chunk = this.#chunks.get(index);
    if (chunk !== undefined) return !chunk.host.includes(NOPAGE);
    return this.#carveEnd <= index * PAGES || (index + 1) * PAGES <= this.#carveStart;
  }

  setHost(pfn: number, state: PageState): void {
    const chunk = this.#chunkOf(pfn);
    chunk.host[pfn % PAGES] = state;
    chunk.guest[pfn % PAGES] = 0;
  }

  setHyp(pfn: number, state: PageState): void {
    this.#chunkOf(pfn).hyp[pfn % PAGES] = state;
  }

  /** Takes the page from the host and notes which guest it went to. */
  giveToGuest(pfn: number, handle: number, gfn: number): void {
    const chunk = this.#chunkOf(pfn);
    chunk.host[pfn % PAGES] = NOPAGE;
    chunk.guest[pfn % PAGES] = handle;
    chunk.gfn[pfn % PAGES] = gfn;
  }

  /** Returns how many there are now. */
  addGuestShare(pfn: number, by: 1 | -1): number {
    const { guestShares } = this.#chunkOf(pfn);
    guestShares[pfn % PAGES]! += by;
    return guestShares[pfn % PAGES]!;
  }

  addPin(pfn: number, by: 1 | -1): void {
    this.#chunkOf(pfn).pins[pfn % PAGES]! += by;
  }

  /** Chunks that have a record, for accounts of memory. */
  get chunks(): number {
    return this.#chunks.size;
  }

  /** Pages that changed hands since boot and are not back, ascending, for those who look on. */
  *touched(): Generator<{ readonly pfn: number; readonly host: PageState; readonly hyp: PageState }> {
    for (const [index, { host, hyp }] of [...this.#chunks].sort(([a], [b]) => a - b)) {
      for (let i = 0; i < PAGES; i++) {
        const isCarved = this.#isCarved(index * PAGES + i);
        if (host[i] === (isCarved ? NOPAGE : OWNED) && hyp[i] === (isCarved ? OWNED : NOPAGE)) continue;
        yield { pfn: index * PAGES + i, host: host[i] as PageState, hyp: hyp[i] as PageState };
      }
    }
  }

  #isCarved(pfn: number): boolean {
    return this.#carveStart <= pfn && pfn < this.#carveEnd;
  }

  #chunkOf(pfn: number): Chunk {
    const index = Math.floor(pfn / PAGES);
    const known = this.#chunks.get(index);
    if (known !== undefined) return known;
    const first = index * PAGES;
    const chunk: Chunk = {
      host: Uint8Array.from({ length: PAGES }, (_, i) => (this.#isCarved(first + i) ? NOPAGE : OWNED)),
      hyp: Uint8Array.from({ length: PAGES }, (_, i) => (this.#isCarved(first + i) ? OWNED : NOPAGE)),
      guestShares: new Uint32Array(PAGES),
      pins: new Uint16Array(PAGES),
      guest: new Uint16Array(PAGES),
      gfn: new Float64Array(PAGES),
    };
    this.#chunks.set(index, chunk);
    return chunk;
  }
}
