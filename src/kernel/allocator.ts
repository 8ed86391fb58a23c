/** The page allocator: zones per node, buddy chunks, contiguous ranges, exact accounts. */
import type { AddressRange } from '../abi/address.ts';
import type { MemblockRegion } from './memblock.ts';
import { MovablePages } from './movable-pages.ts';
import { BLOCK_ORDER } from './split-blocks.ts';
import { forEachBlock, piecesByZone, ZONE_BORDERS, Zone } from './zone.ts';

/** Order of the largest buddy chunk: 4 MiB. @public */
export const MAX_ORDER = BLOCK_ORDER;

/** @public */
export interface AllocOptions {
  /** Node to start with; default 0. */
  readonly node?: number;
  /** Other nodes may be used when it is full; default true. */
  readonly fallback?: boolean;
  /** The kernel may move the pages later to make room for contiguous ranges; default false. */
  readonly movable?: boolean;
  /** What the memory is for; handed to the fault point. */
  readonly purpose: string;
}

/** @public */
export interface ContigOptions {
  readonly node: number;
  /** Nodes that may be used besides `node`; default every node that has memory. */
  readonly nodemask?: ReadonlySet<number>;
  readonly purpose: string;
}

/** Memory of one node in pages; `free + used == total` always holds. @public */
export interface NodeAccount {
  readonly node: number;
  readonly total: number;
  readonly free: number;
  readonly used: number;
}

/** What of the allocator the TDMR code needs. @public */
export interface ContigAllocator {
  /** First page frame of `pages` contiguous pages, or null. */
  allocContig(pages: number, options: ContigOptions): number | null;
  freePages(pfn: number, pages: number): void;
  /** Node of a page that is present, or undefined. */
  nodeOf(pfn: number): number | undefined;
}

/** @public */
export class PageAllocator implements ContigAllocator {
  /** Fault point: true makes this allocation fail. Indexes count the allocations asked for since power-on. */
  fault: ((purpose: string, index: number) => boolean) | null = null;
  /** Told when a movable allocation has been moved. */
  onMigrate: ((fromPfn: number, toPfn: number, order: number) => void) | null = null;
  /** Allocations asked for so far. */
  requests = 0;
  readonly #zones = new Map<number, readonly Zone[]>();
  readonly #zonelists = new Map<number, readonly Zone[]>();
  readonly #used = new Map<number, number>();
  readonly #movable = new MovablePages();

  constructor(memblock: readonly MemblockRegion[]) {
    const ram = memblock.filter((region) => region.kind === 'ram');
    const spans = new Map<Zone, { startPfn: number; endPfn: number }>();
    for (const region of ram) {
      for (const piece of piecesByZone(region)) {
        const zone = this.#zone(region.node, piece.name);
        const span = spans.get(zone) ?? piece;
        spans.set(zone, {
          startPfn: Math.min(span.startPfn, piece.startPfn),
          endPfn: Math.max(span.endPfn, piece.endPfn),
        });
      }
    }
    for (const [zone, { startPfn, endPfn }] of spans) zone.reserveSpan(startPfn, endPfn);
    for (const region of ram) this.addMemory(region, region.node);
  }

  /** Nodes that have memory, ascending. */
  get nodes(): readonly number[] {
    return [...this.#zones.keys()].sort((a, b) => a - b);
  }

  /** Brings memory of `node` in, all free. `range` is page aligned and not yet present. */
  addMemory(range: AddressRange, node: number): void {
    for (const { name, startPfn, endPfn } of piecesByZone(range)) {
      this.#zone(node, name).addPresent(startPfn, endPfn);
    }
  }

  /** Takes memory out, moving movable pages away. Returns false, with nothing changed, when some cannot move. */
  removeMemory(range: AddressRange): boolean {
    const pieces = piecesByZone(range).map((piece) => ({
      ...piece,
      pages: piece.endPfn - piece.startPfn,
      zone: this.#zoneHolding(piece.startPfn, piece.endPfn - piece.startPfn),
    }));
    const taken: typeof pieces = [];
    for (const piece of pieces) {
      if (this.#takeWindow(piece.zone, piece.startPfn, piece.pages)) taken.push(piece);
      else break;
    }
    for (const { zone, startPfn, endPfn, pages } of taken) {
      if (taken.length < pieces.length) this.#give(zone, startPfn, pages);
      else {
        zone.removePresent(startPfn, endPfn);
        this.#account(zone.node, -pages);
      }
    }
    return taken.length === pieces.length;
  }

  /** First page frame of 2^order pages, aligned to their size; null when there is no memory. */
  allocPages(order: number, options: AllocOptions): number | null {
    if (this.#fails(options.purpose)) return null;
    const node = options.node ?? 0;
    const zones = options.fallback === false ? this.#nodeZones(node) : this.#zonelist(node);
    return this.#allocFrom(zones, order, options.movable ?? false);
  }

  /** First page frame of `pages` contiguous pages in one zone; null when no zone has such a window. */
  allocContig(pages: number, options: ContigOptions): number | null {
    if (this.#fails(options.purpose) || pages === 0) return null;
    for (const zone of this.#zonelist(options.node)) {
      if (options.nodemask !== undefined && !options.nodemask.has(zone.node)) continue;
      const pfn = this.#contigIn(zone, pages);
      if (pfn !== null) return pfn;
    }
    return null;
  }

  /** Gives back pages of one allocation, or a part of a contiguous one. */
  freePages(pfn: number, pages: number): void {
    this.#movable.forget(pfn);
    this.#give(this.#zoneHolding(pfn, pages), pfn, pages);
  }

  /** Node of a page that is present, or undefined. */
  nodeOf(pfn: number): number | undefined {
    for (const zone of this.#allZones()) if (zone.holds(pfn, 1)) return zone.node;
    return undefined;
  }

  /** True for a page that is present and that nobody has. */
  isFree(pfn: number): boolean {
    return [...this.#allZones()].some((zone) => zone.holds(pfn, 1) && zone.isFree(pfn, 1));
  }

  accounts(): readonly NodeAccount[] {
    return this.nodes.map((node) => {
      const zones = this.#zones.get(node)!;
      const total = zones.reduce((sum, zone) => sum + zone.presentPages, 0);
      const free = zones.reduce((sum, zone) => sum + zone.freePages, 0);
      return { node, total, free, used: this.#used.get(node) ?? 0 };
    });
  }

  /** Recounts every free page from the bitmaps and throws when an account does not balance. */
  audit(): void {
    for (const zone of this.#allZones()) {
      let free = 0;
      for (const _ of zone.wholeFreeBlocks()) free += 2 ** BLOCK_ORDER;
      for (const { freePages } of zone.split.counted()) free += freePages;
      if (free !== zone.freePages) {
        throw new Error(
          `node ${zone.node} ${zone.name}: ${free} pages are free, the account says ${zone.freePages}`,
        );
      }
    }
    for (const { node, total, free, used } of this.accounts()) {
      if (free + used !== total) {
        throw new Error(`node ${node}: ${free} free and ${used} used pages are not the ${total} present`);
      }
    }
  }

  /** Wholly free 4 MiB blocks of a node by their first page frames, ascending. */
  wholeFreeBlocks(node: number): readonly number[] {
    const blocks: number[] = [];
    for (const zone of [...this.#nodeZones(node)].reverse()) {
      for (const block of zone.wholeFreeBlocks()) blocks.push(block * 2 ** BLOCK_ORDER);
    }
    return blocks;
  }

  /** Takes one given free page for good, such as a pinned one. Returns false when it is not free. */
  takePage(pfn: number): boolean {
    const zone = this.#zoneHolding(pfn, 1);
    if (!zone.isFree(pfn, 1)) return false;
    this.#claim(zone, pfn, 1);
    return true;
  }

  /** State for a saved machine. */
  save() {
    return {
      requests: this.requests,
      zones: this.nodes.flatMap((node) => this.#zones.get(node)!.map((zone) => zone.save())),
      used: this.#used,
      movable: this.#movable.save(),
    };
  }

  /** Goes on from what `save` gave; what memory the allocator was made with does not count. */
  restore(saved: ReturnType<PageAllocator['save']>): void {
    this.requests = saved.requests;
    this.#zonelists.clear();
    this.#zones.clear();
    for (const zone of saved.zones.map(Zone.restored)) {
      this.#zones.set(zone.node, [...this.#nodeZones(zone.node), zone]);
    }
    this.#used.clear();
    for (const [node, pages] of saved.used) this.#used.set(node, pages);
    this.#movable.restore(saved.movable);
  }

  #fails(purpose: string): boolean {
    const index = this.requests++;
    return this.fault?.(purpose, index) ?? false;
  }

  #allocFrom(zones: readonly Zone[], order: number, movable: boolean): number | null {
    for (const zone of zones) {
      const pfn = zone.take(order);
      if (pfn === null) continue;
      this.#account(zone.node, 2 ** order);
      if (movable) this.#movable.add(pfn, order);
      return pfn;
    }
    return null;
  }

  #contigIn(zone: Zone, pages: number): number | null {
    for (let pfn = firstWindow(zone.startPfn, pages); pfn + pages <= zone.endPfn; pfn += pages) {
      if (this.#takeWindow(zone, pfn, pages)) return pfn;
    }
    return null;
  }

  /** Makes the whole window used, moving movable pages out of it. False, with nothing taken, when it cannot be. */
  #takeWindow(zone: Zone, pfn: number, pages: number): boolean {
    if (zone.isFree(pfn, pages)) {
      this.#claim(zone, pfn, pages);
      return true;
    }
    const movable = this.#movable.within(pfn, pages);
    const movablePages = movable.reduce((sum, { order }) => sum + 2 ** order, 0);
    const runs = movable.length === 0 ? [] : this.#freeRuns(zone, pfn, pages);
    if (movablePages === 0 || runs.reduce((sum, [, count]) => sum + count, movablePages) !== pages)
      return false;
    for (const [from, count] of runs) this.#claim(zone, from, count);
    for (const [index, { pfn: from, order }] of movable.entries()) {
      const to = this.#allocFrom(this.#zonelist(zone.node), order, true);
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

  #give(zone: Zone, pfn: number, pages: number): void {
    zone.release(pfn, pages);
    this.#account(zone.node, -pages);
  }

  #account(node: number, pages: number): void {
    this.#used.set(node, (this.#used.get(node) ?? 0) + pages);
  }

  #zone(node: number, name: Zone['name']): Zone {
    const zones = this.#zones.get(node) ?? [];
    const found = zones.find((zone) => zone.name === name);
    if (found !== undefined) return found;
    const zone = new Zone(node, name);
    const order = ZONE_BORDERS.map((border) => border.name);
    this.#zones.set(
      node,
      [...zones, zone].sort((a, b) => order.indexOf(b.name) - order.indexOf(a.name)),
    );
    this.#zonelists.clear();
    return zone;
  }

  /** Zones of a node from the highest addresses down. */
  #nodeZones(node: number): readonly Zone[] {
    return this.#zones.get(node) ?? [];
  }

  /** Zones in the order of fallback: those of `node`, of the nodes after it, then of those before it. */
  #zonelist(node: number): readonly Zone[] {
    const known = this.#zonelists.get(node);
    if (known !== undefined) return known;
    const { nodes } = this;
    const order = [...nodes.filter((other) => other >= node), ...nodes.filter((other) => other < node)];
    const zones = order.flatMap((other) => this.#nodeZones(other));
    this.#zonelists.set(node, zones);
    return zones;
  }

  *#allZones(): IterableIterator<Zone> {
    for (const node of this.nodes) yield* this.#zones.get(node)!;
  }

  #zoneHolding(pfn: number, pages: number): Zone {
    for (const zone of this.#allZones()) if (zone.holds(pfn, pages)) return zone;
    throw new Error(`pages [${pfn}, ${pfn + pages}) are not memory of one zone`);
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
