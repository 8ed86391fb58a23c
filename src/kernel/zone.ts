/**
 * One zone of one node: wholly free 4 MiB blocks are a bitmap, partly free ones are in `SplitBlocks`, and wholly
 * used ones cost nothing. 16 TiB of free memory are 512 KiB of bitmap.
 */
import { type AddressRange, PAGE_4K } from '../abi/address.ts';
import { BLOCK_ORDER, BLOCK_PAGES, SplitBlocks } from './split-blocks.ts';

/** `Movable` and `NonTdx` get memory when it is onlined as such; the others by address. @public */
export type ZoneName = 'DMA' | 'DMA32' | 'Normal' | 'Movable' | 'NonTdx';

/** Zones in the order in which an allocation that may use all of them goes through a node. @internal */
export const ZONE_ORDER: readonly ZoneName[] = ['NonTdx', 'Movable', 'Normal', 'DMA32', 'DMA'];

/** Page frames `[startPfn, endPfn)`. @public */
export interface PfnRange {
  readonly startPfn: number;
  readonly endPfn: number;
}

/** @internal */
export class Zone {
  readonly node: number;
  readonly name: ZoneName;
  /** Present memory, ascending, in page frame numbers. */
  readonly present: { startPfn: number; endPfn: number }[] = [];
  readonly split = new SplitBlocks();
  freePages = 0;
  #firstBlock = 0;
  #blocks = 0;
  /** Bit per block: wholly free. */
  #whole = new Uint32Array(0);
  /** No block below this index is wholly free. */
  #wholeHint = 0;

  constructor(node: number, name: ZoneName) {
    this.node = node;
    this.name = name;
  }

  get startPfn(): number {
    return this.present[0]?.startPfn ?? 0;
  }

  get endPfn(): number {
    return this.present.at(-1)?.endPfn ?? 0;
  }

  get presentPages(): number {
    return this.present.reduce((sum, { startPfn, endPfn }) => sum + endPfn - startPfn, 0);
  }

  /** Makes the bitmap cover `[startPfn, endPfn)`; announced once for a whole zone it is never copied. */
  reserveSpan(startPfn: number, endPfn: number): void {
    const first = Math.floor(startPfn / BLOCK_PAGES);
    const end = Math.ceil(endPfn / BLOCK_PAGES);
    const oldFirst = this.#firstBlock;
    const oldEnd = oldFirst + this.#blocks;
    if (this.#blocks > 0 && first >= oldFirst && end <= oldEnd) return;
    const old = [...this.wholeFreeBlocks()];
    this.#firstBlock = this.#blocks === 0 ? first : Math.min(first, oldFirst);
    this.#blocks = (this.#blocks === 0 ? end : Math.max(end, oldEnd)) - this.#firstBlock;
    this.#whole = new Uint32Array(Math.ceil(this.#blocks / 32));
    this.#wholeHint = 0;
    for (const block of old) this.#setWhole(block, true);
  }

  /** Brings free memory into the zone. */
  addPresent(startPfn: number, endPfn: number): void {
    this.reserveSpan(startPfn, endPfn);
    const at = this.#rangesUpTo(startPfn);
    const before = this.present[at - 1];
    const after = this.present[at];
    const joinsBefore = before?.endPfn === startPfn;
    const joinsAfter = after?.startPfn === endPfn;
    const joined = {
      startPfn: joinsBefore ? before.startPfn : startPfn,
      endPfn: joinsAfter ? after.endPfn : endPfn,
    };
    this.present.splice(at - Number(joinsBefore), Number(joinsBefore) + Number(joinsAfter), joined);
    this.release(startPfn, endPfn - startPfn);
  }

  /** Takes used memory out of the zone. */
  removePresent(startPfn: number, endPfn: number): void {
    const at = this.#rangesUpTo(startPfn) - 1;
    const range = this.present[at]!;
    const rest = [
      { startPfn: range.startPfn, endPfn: startPfn },
      { startPfn: endPfn, endPfn: range.endPfn },
    ].filter((piece) => piece.startPfn < piece.endPfn);
    this.present.splice(at, 1, ...rest);
  }

  /** Takes the first fitting chunk of 2^order pages; null when there is none. */
  take(order: number): number | null {
    if (order < BLOCK_ORDER) {
      const found = this.split.find(order);
      if (found !== undefined) {
        const pfn = found.block * BLOCK_PAGES + found.page;
        this.claim(pfn, 1 << order);
        return pfn;
      }
    }
    const block = this.#firstWhole();
    if (block === undefined) return null;
    this.claim(block * BLOCK_PAGES, 1 << order);
    return block * BLOCK_PAGES;
  }

  /** As `take`, of the pages in the ascending, disjoint `ranges` only. */
  takeWithin(order: number, ranges: readonly PfnRange[]): number | null {
    for (const { startPfn, endPfn } of ranges) {
      const start = Math.max(startPfn, this.startPfn);
      const end = Math.min(endPfn, this.endPfn);
      const pfn = start < end ? this.#findIn(order, start, end) : null;
      if (pfn === null) continue;
      this.claim(pfn, 1 << order);
      return pfn;
    }
    return null;
  }

  /** Marks free pages used. */
  claim(pfn: number, pages: number): void {
    forEachBlock(pfn, pages, (block, from, count) => {
      if (this.isWholeFree(block)) {
        this.#setWhole(block, false);
        if (count === BLOCK_PAGES) return;
        this.split.add(block, true);
      }
      this.split.mark(block, from, count, false);
      if (this.split.freePagesIn(block) === 0) this.split.remove(block);
    });
    this.freePages -= pages;
  }

  /** Marks used pages free, merging blocks that become wholly free. */
  release(pfn: number, pages: number): void {
    forEachBlock(pfn, pages, (block, from, count) => {
      if (this.isWholeFree(block)) throw new Error(`block ${block} freed twice`);
      if (count === BLOCK_PAGES && !this.split.has(block)) {
        this.#setWhole(block, true);
        return;
      }
      if (!this.split.has(block)) this.split.add(block, false);
      this.split.mark(block, from, count, true);
      if (this.split.freePagesIn(block) === BLOCK_PAGES) {
        this.split.remove(block);
        this.#setWhole(block, true);
      }
    });
    this.freePages += pages;
  }

  /** True when the block is in the bitmap of wholly free blocks. */
  isWholeFree(block: number): boolean {
    const index = block - this.#firstBlock;
    if (index < 0 || index >= this.#blocks) return false;
    return ((this.#whole[Math.floor(index / 32)]! >>> (index % 32)) & 1) === 1;
  }

  /** True when every page of the window is free. */
  isFree(pfn: number, pages: number): boolean {
    return everyBlock(pfn, pages, (block, from, count) => {
      if (this.isWholeFree(block)) return true;
      return this.split.has(block) && this.split.allAre(block, from, count, true);
    });
  }

  /** True when all pages are present in one range of the zone. */
  holds(pfn: number, pages: number): boolean {
    const range = this.present[this.#rangesUpTo(pfn) - 1];
    return range !== undefined && pfn + pages <= range.endPfn;
  }

  /** The range of present pages that holds `pfn`. */
  presentRange(pfn: number): PfnRange | undefined {
    return this.holds(pfn, 1) ? this.present[this.#rangesUpTo(pfn) - 1] : undefined;
  }

  /** Number of present ranges that start at or below `pfn`. */
  #rangesUpTo(pfn: number): number {
    let low = 0;
    let high = this.present.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.present[middle]!.startPfn <= pfn) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Wholly free blocks of [from, to), ascending. */
  *wholeFreeBlocks(from = 0, to = Infinity): IterableIterator<number> {
    const last = Math.min(this.#whole.length, Math.ceil((to - this.#firstBlock) / 32));
    for (let word = Math.max(0, Math.floor((from - this.#firstBlock) / 32)); word < last; word++) {
      const bits = this.#whole[word]!;
      for (let bit = 0; bits !== 0 && bit < 32; bit++) {
        const block = this.#firstBlock + word * 32 + bit;
        if (((bits >>> bit) & 1) === 1 && block >= from && block < to) yield block;
      }
    }
  }

  /** State for a saved machine. */
  save() {
    return {
      node: this.node,
      name: this.name,
      present: this.present,
      split: this.split.save(),
      freePages: this.freePages,
      firstBlock: this.#firstBlock,
      blocks: this.#blocks,
      whole: this.#whole,
      wholeHint: this.#wholeHint,
    };
  }

  /** The zone that `save` was called on, again. */
  static restored(saved: ReturnType<Zone['save']>): Zone {
    const zone = new Zone(saved.node, saved.name);
    zone.present.push(...saved.present);
    zone.split.restore(saved.split);
    zone.freePages = saved.freePages;
    zone.#firstBlock = saved.firstBlock;
    zone.#blocks = saved.blocks;
    zone.#whole = saved.whole;
    zone.#wholeHint = saved.wholeHint;
    return zone;
  }

  /** The first free chunk in `[start, end)`: in blocks that are used already, then in wholly free ones. */
  #findIn(order: number, start: number, end: number): number | null {
    const pages = 1 << order;
    const inBlock = (block: number): number | null => {
      const from = Math.max(start, block * BLOCK_PAGES);
      const last = Math.min(end, (block + 1) * BLOCK_PAGES) - pages;
      for (let pfn = Math.ceil(from / pages) * pages; pfn <= last; pfn += pages) {
        if (this.isFree(pfn, pages)) return pfn;
      }
      return null;
    };
    for (const block of this.split.blocks()) {
      const pfn = inBlock(block);
      if (pfn !== null) return pfn;
    }
    for (const block of this.wholeFreeBlocks(Math.floor(start / BLOCK_PAGES), Math.ceil(end / BLOCK_PAGES))) {
      const pfn = inBlock(block);
      if (pfn !== null) return pfn;
    }
    return null;
  }

  #firstWhole(): number | undefined {
    let word = Math.floor(this.#wholeHint / 32);
    while (word < this.#whole.length && this.#whole[word] === 0) word++;
    this.#wholeHint = word * 32;
    if (word === this.#whole.length) return undefined;
    const bits = this.#whole[word]!;
    return this.#firstBlock + word * 32 + (31 - Math.clz32(bits & -bits));
  }

  #setWhole(block: number, free: boolean): void {
    const index = block - this.#firstBlock;
    const word = Math.floor(index / 32);
    const mask = 1 << (index % 32);
    this.#whole[word] = free ? this.#whole[word]! | mask : this.#whole[word]! & ~mask;
    if (free) this.#wholeHint = Math.min(this.#wholeHint, index);
  }
}

/** Visits the pieces of `[pfn, pfn + pages)` block by block. @internal */
export function forEachBlock(
  pfn: number,
  pages: number,
  visit: (block: number, from: number, count: number) => void,
): void {
  everyBlock(pfn, pages, (block, from, count) => {
    visit(block, from, count);
    return true;
  });
}

/** True when `test` holds for all the pieces of `[pfn, pfn + pages)` in their blocks. */
function everyBlock(
  pfn: number,
  pages: number,
  test: (block: number, from: number, count: number) => boolean,
): boolean {
  for (let at = pfn; at < pfn + pages; ) {
    const from = at % BLOCK_PAGES;
    const count = Math.min(BLOCK_PAGES - from, pfn + pages - at);
    if (!test((at - from) / BLOCK_PAGES, from, count)) return false;
    at += count;
  }
  return true;
}

/** Zone borders of x86-64: DMA below 16 MiB, DMA32 below 4 GiB. */
const ZONE_BORDERS: readonly (PfnRange & { readonly name: ZoneName })[] = [
  { name: 'DMA', startPfn: 0, endPfn: 2 ** 24 / PAGE_4K },
  { name: 'DMA32', startPfn: 2 ** 24 / PAGE_4K, endPfn: 2 ** 32 / PAGE_4K },
  { name: 'Normal', startPfn: 2 ** 32 / PAGE_4K, endPfn: Infinity },
];

/** The parts of a range of addresses that fall into each zone, in page frame numbers. @internal */
export function piecesByZone(
  range: AddressRange,
): readonly { name: ZoneName; startPfn: number; endPfn: number }[] {
  return ZONE_BORDERS.map(({ name, startPfn, endPfn }) => ({
    name,
    startPfn: Math.max(startPfn, range.start / PAGE_4K),
    endPfn: Math.min(endPfn, range.end / PAGE_4K),
  })).filter((piece) => piece.startPfn < piece.endPfn);
}
