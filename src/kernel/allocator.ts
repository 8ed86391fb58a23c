/** The page allocator: zones per node, buddy chunks, contiguous ranges, exact accounts. */
import { type AddressRange, MIB, PAGE_4K } from '../abi/address.ts';
import { intersect, subtract } from '../abi/ranges.ts';
import {
  type AllocatorOptions,
  type AllocOptions,
  type ContigAllocator,
  type ContigOptions,
  mayUse,
  type NodeAccount,
  type ZoneAccount,
} from './allocation.ts';
import type { MemblockRegion } from './memblock.ts';
import { MovablePages } from './movable-pages.ts';
import { NodeZones, type ZonePiece } from './node-zones.ts';
import { OutOfUse } from './out-of-use.ts';
import { BLOCK_ORDER } from './split-blocks.ts';
import { forEachBlock, type PfnRange, piecesByZone, type Zone } from './zone.ts';

/** Order of the largest buddy chunk: 4 MiB. @public */
export const MAX_ORDER = BLOCK_ORDER;

/** Memory that the kernel keeps to itself: firmware and real-mode code write there, and no TD may have it. */
const KEPT_LOW = MIB;

/** @public */
export class PageAllocator implements ContigAllocator {
  /** Fault point: true makes this allocation fail. Indexes count the allocations asked for since power-on. */
  fault: ((purpose: string, index: number) => boolean) | null = null;
  /** Told when a movable allocation has been moved. */
  onMigrate: ((fromPfn: number, toPfn: number, order: number) => void) | null = null;
  /** Allocations asked for so far. */
  requests = 0;
  readonly #zones: NodeZones;
  readonly #used = new Map<number, number>();
  readonly #movable = new MovablePages();
  readonly #out = new OutOfUse();

  constructor(
    memblock: readonly MemblockRegion[],
    { distance = () => 0, movable = [] }: AllocatorOptions = {},
  ) {
    this.#zones = new NodeZones(distance);
    const ram = memblock
      .filter((region) => region.kind === 'ram' && region.end > KEPT_LOW)
      .map((region) => ({ ...region, start: Math.max(region.start, KEPT_LOW) }));
    const spans = new Map<Zone, PfnRange>();
    for (const region of ram) {
      for (const piece of piecesByZone(region)) {
        const zone = this.#zones.zone(region.node, piece.name);
        const span = spans.get(zone) ?? piece;
        spans.set(zone, {
          startPfn: Math.min(span.startPfn, piece.startPfn),
          endPfn: Math.max(span.endPfn, piece.endPfn),
        });
      }
    }
    for (const [zone, { startPfn, endPfn }] of spans) zone.reserveSpan(startPfn, endPfn);
    for (const region of ram) {
      for (const range of subtract([region], movable)) this.addMemory(range, region.node);
      for (const range of intersect([region], movable)) this.addMemory(range, region.node, 'Movable');
    }
  }

  /** Nodes that have memory, or had it, ascending. */
  get nodes(): readonly number[] {
    return this.#zones.nodes;
  }

  /**
   * Brings memory of `node` in, all free, into the zone `name` or, without one, into those of its addresses. `range` is
   * page aligned and not yet present.
   */
  addMemory(range: AddressRange, node: number, name?: 'Movable' | 'NonTdx'): void {
    if (name !== undefined) {
      this.#zones.zone(node, name).addPresent(range.start / PAGE_4K, range.end / PAGE_4K);
      return;
    }
    for (const piece of piecesByZone(range)) {
      this.#zones.zone(node, piece.name).addPresent(piece.startPfn, piece.endPfn);
    }
  }

  /**
   * Takes memory out, moving movable pages away; pages that are out of use for good go with it. Returns false, with
   * nothing changed, when some cannot move.
   */
  removeMemory(range: AddressRange): boolean {
    const pieces = this.#zones.pieces(range);
    const taken: ZonePiece[] = [];
    for (const piece of pieces) {
      if (!this.#takeWindow(piece.zone, piece.startPfn, piece.pages, true)) break;
      taken.push(piece);
    }
    const isTaken = taken.length === pieces.length;
    for (const { zone, startPfn, pages } of taken) {
      if (!isTaken) {
        this.#give(zone, startPfn, pages);
        continue;
      }
      const retired = this.#out.retiredIn(startPfn, pages);
      zone.removePresent(startPfn, startPfn + pages);
      this.#account(zone.node, retired.length - pages);
      this.#out.removed(zone.node, retired);
    }
    return isTaken;
  }

  /** First page frame of 2^order pages, aligned to their size; null when there is no memory. */
  allocPages(order: number, options: AllocOptions): number | null {
    if (this.#fails(options.purpose)) return null;
    const node = options.node ?? 0;
    const zones = options.fallback === false ? this.#zones.of(node) : this.#zones.fallback(node);
    return this.#allocFrom(zones, order, options);
  }

  /** First page frame of `pages` contiguous pages in one zone; null when no zone has such a window. */
  allocContig(pages: number, options: ContigOptions): number | null {
    if (this.#fails(options.purpose) || pages === 0) return null;
    for (const zone of this.#zones.fallback(options.node)) {
      if (!mayUse(zone, options)) continue;
      const pfn = this.#contigIn(zone, pages);
      if (pfn !== null) return pfn;
    }
    return null;
  }

  /** Gives back pages of one allocation, or a part of a contiguous one. Failed memory stays out of use. */
  freePages(pfn: number, pages: number): void {
    this.#movable.forget(pfn);
    this.#give(this.#zones.holding(pfn, pages), pfn, pages);
  }

  /** Node of a page that is present, or undefined. */
  nodeOf(pfn: number): number | undefined {
    return this.#zones.find(pfn, 1)?.node;
  }

  /** True for a page that is present and that nobody has. */
  isFree(pfn: number): boolean {
    return this.#zones.find(pfn, 1)?.isFree(pfn, 1) ?? false;
  }

  /**
   * The memory of a page has failed: it is never given to anybody again. `free`: nobody had it; `used`: somebody has it,
   * and it goes out of use when they free it; `absent`: the allocator does not have the page; `known`: it failed before.
   */
  poison(pfn: number): 'free' | 'used' | 'absent' | 'known' {
    if (this.#out.isPoisoned(pfn)) return 'known';
    const zone = this.#zones.find(pfn, 1);
    if (zone === undefined) return 'absent';
    this.#out.poison(pfn);
    this.#movable.pin(pfn);
    if (!zone.isFree(pfn, 1)) return 'used';
    zone.claim(pfn, 1);
    this.#out.retire(zone.node, [pfn]);
    return 'free';
  }

  isPoisoned(pfn: number): boolean {
    return this.#out.isPoisoned(pfn);
  }

  /** Page frames of a range whose memory has failed, whether or not it is present. */
  poisonedIn(range: AddressRange): readonly number[] {
    return this.#out.poisonedIn(range.start / PAGE_4K, (range.end - range.start) / PAGE_4K);
  }

  /** The memory of a range was replaced: pages that had failed are good again. None of it is present. */
  replaced(range: AddressRange): void {
    this.#out.replaced(this.poisonedIn(range));
  }

  /** Counts pages of one allocation as ballooned, or as used again. */
  balloon(pfn: number, pages: number, isIn: boolean): void {
    const { node } = this.#zones.holding(pfn, pages);
    const count = isIn ? pages : -pages;
    this.#out.account(node, 'ballooned', count);
    this.#account(node, -count);
  }

  accounts(): readonly NodeAccount[] {
    return this.nodes.map((node) => {
      const zones = this.#zones.of(node);
      const total = zones.reduce((sum, zone) => sum + zone.presentPages, 0);
      const free = zones.reduce((sum, zone) => sum + zone.freePages, 0);
      return { node, total, free, used: this.#used.get(node) ?? 0, ...this.#out.on(node) };
    });
  }

  /** Zones that have memory: nodes ascending, within a node in the order of fallback. */
  zones(): readonly ZoneAccount[] {
    return [...this.#zones.all()].filter((zone) => zone.present.length > 0);
  }

  /** Zones in the order in which an allocation on `node` looks at them. */
  fallbackZones(node: number, fallback = true): readonly ZoneAccount[] {
    return fallback ? this.#zones.fallback(node) : this.#zones.of(node);
  }

  /** Recounts every free page from the bitmaps and throws when an account does not balance. */
  audit(): void {
    for (const zone of this.#zones.all()) {
      let free = 0;
      for (const _ of zone.wholeFreeBlocks()) free += 2 ** BLOCK_ORDER;
      for (const { freePages } of zone.split.counted()) free += freePages;
      if (free !== zone.freePages) {
        throw new Error(
          `node ${zone.node} ${zone.name}: ${free} pages are free, the account says ${zone.freePages}`,
        );
      }
    }
    for (const { node, total, free, used, poisoned, ballooned } of this.accounts()) {
      if (free + used + poisoned + ballooned === total) continue;
      const parts = `${free} free, ${used} used, ${poisoned} poisoned and ${ballooned} ballooned pages`;
      throw new Error(`node ${node}: ${parts} are not the ${total} present`);
    }
  }

  /** Wholly free 4 MiB blocks of a node by their first page frames, ascending. */
  wholeFreeBlocks(node: number): readonly number[] {
    const blocks = this.#zones.of(node).flatMap((zone) => [...zone.wholeFreeBlocks()]);
    return blocks.sort((a, b) => a - b).map((block) => block * 2 ** BLOCK_ORDER);
  }

  /** Takes one given free page for good, such as a pinned one. Returns false when it is not free. */
  takePage(pfn: number): boolean {
    const zone = this.#zones.holding(pfn, 1);
    if (!zone.isFree(pfn, 1)) return false;
    this.#claim(zone, pfn, 1);
    return true;
  }

  /** State for a saved machine. */
  save() {
    return {
      requests: this.requests,
      zones: this.#zones.save(),
      used: this.#used,
      movable: this.#movable.save(),
      out: this.#out.save(),
    };
  }

  /** Goes on from what `save` gave; what memory the allocator was made with does not count. */
  restore(saved: ReturnType<PageAllocator['save']>): void {
    this.requests = saved.requests;
    this.#zones.restore(saved.zones);
    this.#used.clear();
    for (const [node, pages] of saved.used) this.#used.set(node, pages);
    this.#movable.restore(saved.movable);
    this.#out.restore(saved.out);
  }

  #fails(purpose: string): boolean {
    const index = this.requests++;
    return this.fault?.(purpose, index) ?? false;
  }

  #allocFrom(
    zones: readonly Zone[],
    order: number,
    options: Omit<AllocOptions, 'node' | 'fallback' | 'purpose'>,
  ): number | null {
    for (const zone of zones) {
      if (!mayUse(zone, options)) continue;
      const pfn = options.within === undefined ? zone.take(order) : zone.takeWithin(order, options.within);
      if (pfn === null) continue;
      this.#account(zone.node, 2 ** order);
      if (options.movable === true) this.#movable.add(pfn, order);
      return pfn;
    }
    return null;
  }

  #contigIn(zone: Zone, pages: number): number | null {
    for (let pfn = firstWindow(zone.startPfn, pages); pfn + pages <= zone.endPfn; pfn += pages) {
      if (this.#takeWindow(zone, pfn, pages, false)) return pfn;
    }
    return null;
  }

  /**
   * Makes the whole window used, moving movable pages out of it; for removal, failed pages that nobody has are no
   * obstacle. False, with nothing taken, when it cannot be.
   */
  #takeWindow(zone: Zone, pfn: number, pages: number, isRemoval: boolean): boolean {
    if (zone.isFree(pfn, pages)) {
      this.#claim(zone, pfn, pages);
      return true;
    }
    const movable = this.#movable.within(pfn, pages);
    const retired = isRemoval ? this.#out.retiredIn(pfn, pages).length : 0;
    const movablePages = movable.reduce((sum, { order }) => sum + 2 ** order, 0);
    if (movablePages === 0 && retired === 0) return false;
    const runs = this.#freeRuns(zone, pfn, pages);
    if (runs.reduce((sum, [, count]) => sum + count, movablePages) + retired !== pages) return false;
    for (const [from, count] of runs) this.#claim(zone, from, count);
    const places = { movable: true, nonTdxOk: zone.name === 'NonTdx' };
    for (const [index, { pfn: from, order }] of movable.entries()) {
      const to = this.#allocFrom(this.#zones.fallback(zone.node), order, places);
      if (to === null) {
        for (const [start, count] of runs) this.#give(zone, start, count);
        for (const moved of movable.slice(0, index)) this.#give(zone, moved.pfn, 2 ** moved.order);
        return false;
      }
      this.#movable.forget(from);
      this.onMigrate?.(from, to, order);
    }
    return true;
  }

  #freeRuns(zone: Zone, pfn: number, pages: number): [pfn: number, count: number][] {
    const runs: [number, number][] = [];
    forEachBlock(pfn, pages, (block, from, count) => {
      const base = block * 2 ** BLOCK_ORDER;
      if (zone.isWholeFree(block)) runs.push([base + from, count]);
      else if (zone.split.has(block)) {
        for (const [start, length] of zone.split.freeRuns(block, from, count))
          runs.push([base + start, length]);
      }
    });
    return runs;
  }

  #claim(zone: Zone, pfn: number, pages: number): void {
    zone.claim(pfn, pages);
    this.#account(zone.node, pages);
  }

  /** Used pages become free, but for those that have failed. Among them may be pages that nobody had for that reason. */
  #give(zone: Zone, pfn: number, pages: number): void {
    const poisoned = this.#out.poisonedIn(pfn, pages);
    if (poisoned.length === 0) zone.release(pfn, pages);
    else {
      let from = pfn;
      for (const failed of [...poisoned, pfn + pages]) {
        if (failed > from) zone.release(from, failed - from);
        from = failed + 1;
      }
    }
    const retired = this.#out.retiredIn(pfn, pages);
    this.#account(zone.node, retired.length - pages);
    this.#out.retire(
      zone.node,
      poisoned.filter((page) => !retired.includes(page)),
    );
  }

  #account(node: number, pages: number): void {
    this.#used.set(node, (this.#used.get(node) ?? 0) + pages);
  }
}

/**
 * Where Linux looks first for `pages` contiguous pages; it goes on in steps of `pages`. The mask aligns only for
 * powers of two, and may then lie below the zone; PAMTs have other sizes, and their places follow from this.
 */
function firstWindow(startPfn: number, pages: number): number {
  const mask = BigInt(pages - 1);
  return Number((BigInt(startPfn) + mask) & ~mask);
}
