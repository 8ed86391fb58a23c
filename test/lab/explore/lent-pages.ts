/** Writes down which pages a real kernel hands out and takes back, by the areas of an abstract host. */
import { PAGE_4K } from '../../../src/abi/address.ts';
import type { HostKernel } from '../../../src/kernel/host-kernel.ts';
import type { PlacedArea } from '../../../src/lab/explore/abstract/from-scenario.ts';

/** What pages are for, as abstract hosts tell it. */
export type LentUse = 'kernel' | 'pamt' | 'control' | 'memory' | 'host';

/** Pages of one allocation. */
export interface Lent {
  readonly use: LentUse;
  readonly area: number;
  readonly pages: number;
  /** Number of the event in which they were handed out. */
  readonly event: number;
  /** Subject of that event. */
  readonly owner: string;
}

/** What an allocation came to: pages of an area, or nothing. */
export interface Request {
  readonly use: LentUse;
  readonly area: number | null;
  readonly pages: number;
}

const USES: Readonly<Record<string, LentUse>> = {
  'td-control': 'control',
  'td-sept': 'control',
  'td-memory': 'memory',
  host: 'host',
  pamt: 'pamt',
};

export class LentPages {
  /** By first page frame. */
  readonly held = new Map<number, Lent>();
  /** Allocations of the current event, in order; a page that was only looked at is there too. */
  requests: Request[] = [];
  /** Given back in the current event. */
  returned: Lent[] = [];
  /** The last allocation for a TD, where it failed. */
  failed: { readonly use: LentUse; readonly code: string } | null = null;
  #event = -1;
  #owner = '';
  readonly #areas: readonly PlacedArea[];

  constructor(kernel: HostKernel, areas: readonly PlacedArea[]) {
    this.#areas = areas;
    const { allocator, tdMemory } = kernel;
    const allocPages = allocator.allocPages.bind(allocator);
    const allocContig = allocator.allocContig.bind(allocator);
    const freePages = allocator.freePages.bind(allocator);
    const find = tdMemory.find.bind(tdMemory);
    let isForTd = false;
    allocator.allocPages = (order, options) => {
      const pfn = allocPages(order, options);
      if (pfn !== null) this.#lend(pfn, 2 ** order, USES[options.purpose] ?? 'kernel', !isForTd);
      return pfn;
    };
    allocator.allocContig = (pages, options) => {
      const pfn = allocContig(pages, options);
      if (pfn !== null) this.#lend(pfn, pages, USES[options.purpose] ?? 'kernel', true);
      return pfn;
    };
    allocator.freePages = (pfn, pages) => {
      freePages(pfn, pages);
      this.#takeBack(pfn, pages);
    };
    tdMemory.find = (order, request) => {
      isForTd = true;
      const found = find(order, request);
      isForTd = false;
      const use = USES[request.purpose] ?? 'kernel';
      if (typeof found === 'number') {
        this.failed = null;
        this.requests.push({ use, area: this.areaOf(found), pages: 2 ** order });
      } else {
        const pfn = found.code === 'page-not-tdx' ? Number(found.data.pfn) : null;
        if (pfn !== null) this.requests.push({ use, area: this.areaOf(pfn), pages: 1 });
        this.failed = { use, code: found.code };
      }
      return found;
    };
  }

  /** Another event begins, of this TD or allocation. */
  begin(event: number, owner: string): void {
    this.#event = event;
    this.#owner = owner;
    this.requests = [];
    this.returned = [];
    this.failed = null;
  }

  get event(): number {
    return this.#event;
  }

  /** Pages held now that `test` picks, in each area. */
  count(test: (lent: Lent) => boolean): number[] {
    const counts = this.#areas.map(() => 0);
    for (const lent of this.held.values()) if (test(lent)) counts[lent.area]! += lent.pages;
    return counts;
  }

  areaOf(pfn: number): number {
    const at = pfn * PAGE_4K;
    const area = this.#areas.findIndex(({ ranges }) =>
      ranges.some(({ start, end }) => start <= at && at < end),
    );
    if (area < 0) throw new Error(`page ${pfn} is of no area`);
    return area;
  }

  #lend(pfn: number, pages: number, use: LentUse, isRequest: boolean): void {
    // A contiguous allocation may lie in several areas.
    for (let at = pfn; at < pfn + pages; ) {
      const area = this.areaOf(at);
      const address = at * PAGE_4K;
      const { end } = this.#areas[area]!.ranges.find(
        (range) => range.start <= address && address < range.end,
      )!;
      const count = Math.min(pfn + pages, end / PAGE_4K) - at;
      this.held.set(at, { use, area, pages: count, event: this.#event, owner: this.#owner });
      if (isRequest) this.requests.push({ use, area, pages: count });
      at += count;
    }
  }

  #takeBack(pfn: number, pages: number): void {
    for (let at = pfn; at < pfn + pages; ) {
      const lent = this.held.get(at);
      if (lent === undefined || at + lent.pages > pfn + pages)
        throw new Error(`pages from ${at} were not lent so`);
      this.held.delete(at);
      this.returned.push(lent);
      at += lent.pages;
    }
  }
}
