/** Memory for TDs: what an allocation does under the policy, and which pages the module will take. */
import { type AddressRange, hex, PAGE_4K } from '../abi/address.ts';
import { KernelError, type Reason } from '../abi/errno.ts';
import { intersect, union } from '../abi/ranges.ts';
import { MPOL } from '../abi/system-call-flags.ts';
import type { VirtualClock } from '../machine/clock.ts';
import type { AllocOptions, ZoneAccount } from './allocation.ts';
import type { PageAllocator } from './allocator.ts';
import type { TdAllocationPolicy } from './policy/kernel-policy.ts';
import { type MemoryPolicy, policyAttempts } from './process/mempolicy.ts';
import type { PfnRange } from './zone.ts';

/** @public */
export interface TdPageRequest {
  /** What the pages are for; handed to the allocator's fault point. */
  readonly purpose: string;
  /** Node to start with; default 0. */
  readonly node?: number;
  /** Memory policy; default `TdMemory.controlPolicy`. Null is the default policy: `node` first, then the others. */
  readonly policy?: MemoryPolicy | null;
  /** What interleaving goes by; default a number that counts up. */
  readonly index?: number;
  /** Only nodes that the policy prefers may be used. */
  readonly isStrict?: boolean;
}

/** What TD allocations look at. @public */
export interface TdMemoryContext {
  readonly allocator: PageAllocator;
  readonly clock: VirtualClock;
  readonly tdAllocation: () => TdAllocationPolicy;
  /** Memory TDs can use, ascending; the same array as long as it does not change. */
  readonly usable: () => readonly AddressRange[];
}

/** Virtual time to allocate a page, look at it and put it aside. */
const LOOK_NS = 200;

/** @public */
export class TdMemory {
  /** For pages that no other policy is for: TDR, TDCS, TDVPS, SEPT and the pairs of Dynamic PAMT. */
  controlPolicy: MemoryPolicy | null = null;
  /** Pages put aside under `retry`, at most: all that were free, no TDX memory, and came before the right one. */
  pagesPutAside = 0;
  readonly #context: TdMemoryContext;
  #turn = 0;
  #usable: readonly AddressRange[] | null = null;
  #ranges: readonly PfnRange[] = [];

  constructor(context: TdMemoryContext) {
    this.#context = context;
  }

  /** First page frame of 2^order pages, aligned to their size. Throws ENOMEM with the reason. */
  alloc(order: number, request: TdPageRequest): number {
    const found = this.find(order, request);
    if (typeof found === 'number') return found;
    throw new KernelError('ENOMEM', found.code, found.text, found.data);
  }

  /** As `alloc`, and returns the reason. */
  find(order: number, request: TdPageRequest): number | Reason {
    const { controlPolicy } = this;
    const { node = 0, policy = controlPolicy, isStrict = false } = request;
    const tdAllocation = this.#context.tdAllocation();
    const attempts = policyAttempts({ policy, index: request.index ?? this.#turn++, localNode: node });
    let refusal: Reason | null = null;
    for (const attempt of attempts) {
      const options = {
        node: attempt.node,
        fallback: attempt.fallback && !isStrict,
        purpose: request.purpose,
        ...(policy?.mode === MPOL.BIND ? { nodemask: new Set(policy.nodes) } : {}),
      };
      const found = this.#try[tdAllocation](order, options);
      if (typeof found === 'number') return found;
      refusal ??= found;
    }
    return refusal ?? noMemory(order, request.purpose);
  }

  /** Gives 2^order pages back. */
  free(pfn: number, order: number): void {
    this.#context.allocator.freePages(pfn, 2 ** order);
  }

  /** Whether the module takes all of these pages: they are TDX memory and no TDMR reserves them. */
  isUsable(pfn: number, pages = 1): boolean {
    return this.ranges.some((range) => holds(range, pfn, pages));
  }

  /** Page frames that TDs can use, ascending; none while TDX is not initialised. */
  get ranges(): readonly PfnRange[] {
    const usable = this.#context.usable();
    if (usable !== this.#usable) {
      this.#usable = usable;
      this.#ranges = union(usable).map(({ start, end }) => ({
        startPfn: start / PAGE_4K,
        endPfn: end / PAGE_4K,
      }));
    }
    return this.#ranges;
  }

  /** Whether TDs can use all memory of a zone. */
  isCapable(zone: Pick<ZoneAccount, 'present'>): boolean {
    return zone.present.every(({ startPfn, endPfn }) => this.isUsable(startPfn, endPfn - startPfn));
  }

  /** State for a saved machine. */
  save() {
    return { controlPolicy: this.controlPolicy, pagesPutAside: this.pagesPutAside, turn: this.#turn };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<TdMemory['save']>): void {
    this.controlPolicy = saved.controlPolicy;
    this.pagesPutAside = saved.pagesPutAside;
    this.#turn = saved.turn;
  }

  /** One try under each policy: a page frame, why there is none, or null for no memory at all. */
  readonly #try: Readonly<
    Record<TdAllocationPolicy, (order: number, options: AllocOptions) => number | Reason | null>
  > = {
    trust: (order, options) => this.#context.allocator.allocPages(order, options),
    check: (order, options) => {
      const { allocator } = this.#context;
      const pfn = allocator.allocPages(order, options);
      if (pfn === null || this.isUsable(pfn, 2 ** order)) return pfn;
      const node = allocator.nodeOf(pfn);
      allocator.freePages(pfn, 2 ** order);
      return {
        code: 'page-not-tdx',
        text: `the page at ${hex(pfn * PAGE_4K)} on node ${node} is no TDX memory (${options.purpose})`,
        data: { pfn, order, node, purpose: options.purpose },
      };
    },
    constrain: (order, options) => {
      const { allocator } = this.#context;
      const pfn = allocator.allocPages(order, { ...options, zones: (zone) => this.isCapable(zone) });
      return pfn ?? this.#noTdxMemory('no zone that is all TDX memory has', order, options);
    },
    retry: (order, options) => {
      const { allocator, clock } = this.#context;
      const first = allocator.allocPages(order, options);
      if (first === null || this.isUsable(first, 2 ** order)) return first;
      allocator.freePages(first, 2 ** order);
      const pfn = allocator.allocPages(order, { ...options, within: this.ranges });
      const aside = this.#wrongPages(options, pfn);
      this.pagesPutAside += aside;
      clock.advance(aside * LOOK_NS);
      return pfn ?? this.#noTdxMemory('with all other pages put aside no zone has', order, options);
    },
  };

  #noTdxMemory(which: string, order: number, { purpose }: AllocOptions): Reason {
    const freePages = this.#context.allocator.accounts().reduce((sum, { free }) => sum + free, 0);
    return {
      code: 'no-tdx-memory',
      text: `${which} ${pagesOf(order)} free (${purpose}); ${freePages} pages are free in all`,
      data: { order, purpose, freePages },
    };
  }

  /** Free pages that are no TDX memory, in the zones up to the one that holds `pfn`; in all without one. */
  #wrongPages({ node = 0, fallback }: AllocOptions, pfn: number | null): number {
    let pages = 0;
    for (const zone of this.#context.allocator.fallbackZones(node, fallback)) {
      if (zone.name !== 'NonTdx') pages += Math.min(zone.freePages, zone.presentPages - this.#usableIn(zone));
      if (pfn !== null && zone.present.some((range) => holds(range, pfn, 1))) break;
    }
    return pages;
  }

  #usableIn({ present }: ZoneAccount): number {
    return intersect(this.ranges.map(addresses), present.map(addresses)).reduce(
      (sum, { start, end }) => sum + (end - start) / PAGE_4K,
      0,
    );
  }
}

function addresses({ startPfn, endPfn }: PfnRange): AddressRange {
  return { start: startPfn * PAGE_4K, end: endPfn * PAGE_4K };
}

function holds({ startPfn, endPfn }: PfnRange, pfn: number, pages: number): boolean {
  return startPfn <= pfn && pfn + pages <= endPfn;
}

function pagesOf(order: number): string {
  return order === 0 ? 'a page' : `${2 ** order} pages together`;
}

function noMemory(order: number, purpose: string): Reason {
  const text =
    order === 0
      ? `no page is free for a TD (${purpose})`
      : `no ${pagesOf(order)} are free for a TD (${purpose})`;
  return { code: 'no-page', text, data: { order, purpose } };
}
