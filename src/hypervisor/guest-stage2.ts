/**
 * A guest's second stage of translation: tables of 512 descriptors in pages that the host donated, read and written in
 * place. Descriptors are those of the architecture (4 KiB granule); software bits 55 and 56 hold the page's state.
 */
import { PAGE_4K } from '../abi/address.ts';
import { GUEST_PROT, stage2RootPages } from '../abi/pkvm.ts';
import type { PhysicalMemory } from '../machine/memory.ts';
import { PAGE_STATE, type PageState } from './page-state.ts';

const ENTRIES = 512;
const LAST_LEVEL = 3;
/** Pages that an entry of level 0 to 3 spans. */
const PAGES_AT = [2 ** 27, 2 ** 18, 2 ** 9, 1] as const;
/** Low half of a descriptor. */
const VALID = 1;
const TABLE_OR_PAGE = 2;
const READ = 1 << 6;
const WRITE = 1 << 7;
const ACCESSED = 1 << 10;
/** High half. */
const EXECUTE_NEVER = 1 << 22;
const STATE_SHIFT = 23;
/** Types of invalid descriptors: what the hypervisor notes where nothing is mapped. */
const POISONED = 1 << 28;
const MMIO = 2 << 28;

/** Where a guest page lies. @public */
export interface GuestLeaf {
  /** PAGE_STATE.NOPAGE or POISON where nothing is mapped. */
  readonly state: PageState;
  /** First page of the mapping, and of the guest's frames that it maps. */
  readonly pfn: number;
  readonly gfn: number;
  /** 1, or 512 for a block. */
  readonly pages: number;
  /** GUEST_PROT bits. */
  readonly prot: number;
  /** Nothing is mapped because the guest said that devices are here. */
  readonly isMmio: boolean;
}

/** Pages for tables: takes one, or returns undefined when there is none. @internal */
export type TablePages = () => number | undefined;

/** @public */
export class GuestStage2 {
  readonly ipaBits: number;
  readonly rootPfn: number;
  readonly rootPages: number;
  readonly #memory: PhysicalMemory;
  readonly #startLevel: number;

  /** `rootPfn`: first of `stage2RootPages(ipaBits)` zeroed pages. */
  constructor(memory: PhysicalMemory, ipaBits: number, rootPfn: number) {
    this.#memory = memory;
    this.ipaBits = ipaBits;
    this.rootPfn = rootPfn;
    this.rootPages = stage2RootPages(ipaBits);
    this.#startLevel = startLevel(ipaBits);
  }

  /** True for a frame that a guest address can have. */
  holds(gfn: number): boolean {
    return gfn < 2 ** (this.ipaBits - 12);
  }

  leaf(gfn: number): GuestLeaf {
    const { pfn, index, level } = this.#walk(gfn);
    const [low, high] = this.#read(pfn, index);
    const pages = PAGES_AT[level]!;
    const first = Math.floor(gfn / pages) * pages;
    if ((low & VALID) === 0) {
      const state = high === POISONED ? PAGE_STATE.POISON : PAGE_STATE.NOPAGE;
      return { state, pfn: 0, gfn: first, pages, prot: 0, isMmio: high === MMIO };
    }
    const prot =
      ((low & READ) === 0 ? 0 : GUEST_PROT.read) |
      ((low & WRITE) === 0 ? 0 : GUEST_PROT.write) |
      ((high & EXECUTE_NEVER) === 0 ? GUEST_PROT.execute : 0);
    const state = ((high >>> STATE_SHIFT) & 3) as PageState;
    return { state, pfn: outputPfn(low, high), gfn: first, pages, prot, isMmio: false };
  }

  /** Tables that `map` of `pages` at `gfn` would have to make. */
  tablesMissing(gfn: number, pages: number): number {
    return Math.max(0, leafLevel(pages) - this.#walk(gfn).level);
  }

  /** True when nothing is mapped or noted at any of 1 or 512 pages. */
  isEmpty(gfn: number, pages: number): boolean {
    for (let at = gfn; at < gfn + pages; ) {
      const leaf = this.leaf(at);
      if (leaf.state !== PAGE_STATE.NOPAGE || leaf.isMmio) return false;
      at = leaf.gfn + leaf.pages;
    }
    return true;
  }

  /**
   * Maps 1 or 512 pages, or changes what is said of them. `take` has a page for every table that is missing. Returns
   * the page of an empty table that a block replaced.
   */
  map(
    gfn: number,
    pages: number,
    pfn: number,
    prot: number,
    state: PageState,
    take: TablePages,
  ): number | undefined {
    const { pfn: table, index } = this.#descend(gfn, leafLevel(pages), take);
    const [oldLow, oldHigh] = this.#read(table, index);
    const replaced = pages > 1 && (oldLow & 3) === (VALID | TABLE_OR_PAGE);
    const low =
      VALID |
      ACCESSED |
      (pages === 1 ? TABLE_OR_PAGE : 0) |
      ((prot & GUEST_PROT.read) === 0 ? 0 : READ) |
      ((prot & GUEST_PROT.write) === 0 ? 0 : WRITE);
    const high = (state << STATE_SHIFT) | ((prot & GUEST_PROT.execute) === 0 ? EXECUTE_NEVER : 0);
    this.#write(table, index, low | lowAddress(pfn), high | highAddress(pfn));
    return replaced ? outputPfn(oldLow, oldHigh) : undefined;
  }

  /** Removes the leaf that maps `gfn`. */
  unmap(gfn: number): void {
    const { pfn, index } = this.#walk(gfn);
    this.#write(pfn, index, 0, 0);
  }

  /** Notes at a page that the host took it by force. */
  poison(gfn: number): void {
    const { pfn, index } = this.#walk(gfn);
    this.#write(pfn, index, 0, POISONED);
  }

  /** Notes at a page where nothing is mapped that devices are there. */
  markMmio(gfn: number, take: TablePages): void {
    const { pfn, index } = this.#descend(gfn, LAST_LEVEL, take);
    this.#write(pfn, index, 0, MMIO);
  }

  /** Turns the block that maps `gfn` into 512 pages. */
  split(gfn: number, tablePfn: number): void {
    const block = this.leaf(gfn);
    const { pfn, index } = this.#walk(gfn);
    this.#write(pfn, index, VALID | TABLE_OR_PAGE | lowAddress(tablePfn), highAddress(tablePfn));
    const noTable = (): undefined => undefined;
    for (let i = 0; i < ENTRIES; i++) {
      this.map(block.gfn + i, 1, block.pfn + i, block.prot, block.state, noTable);
    }
  }

  /** Pages of the tables below the root. */
  *tables(): Generator<number> {
    for (const { pfn, level } of this.#tablesFrom(this.#startLevel)) {
      if (level > this.#startLevel) yield pfn;
    }
  }

  /** Everything that is mapped, ascending. */
  *leaves(): Generator<GuestLeaf> {
    for (const { pfn, level, gfn } of this.#tablesFrom(this.#startLevel)) {
      for (let index = 0; index < ENTRIES; index++) {
        const [low] = this.#read(pfn, index);
        const isLeaf = level === LAST_LEVEL || (low & TABLE_OR_PAGE) === 0;
        if ((low & VALID) !== 0 && isLeaf) yield this.leaf(gfn + index * PAGES_AT[level]!);
      }
    }
  }

  *#tablesFrom(start: number): Generator<{ pfn: number; level: number; gfn: number }> {
    const pile = Array.from({ length: this.rootPages }, (_, i) => ({
      pfn: this.rootPfn + i,
      level: start,
      gfn: i * ENTRIES * PAGES_AT[start]!,
    })).reverse();
    for (let table = pile.pop(); table !== undefined; table = pile.pop()) {
      yield table;
      const { pfn, level, gfn } = table;
      if (level === LAST_LEVEL) continue;
      for (let index = ENTRIES - 1; index >= 0; index--) {
        const [low, high] = this.#read(pfn, index);
        if ((low & 3) !== (VALID | TABLE_OR_PAGE)) continue;
        pile.push({ pfn: outputPfn(low, high), level: level + 1, gfn: gfn + index * PAGES_AT[level]! });
      }
    }
  }

  /** The deepest entry there is for `gfn`, of level `to` at most. */
  #walk(gfn: number, to: number = LAST_LEVEL): { pfn: number; index: number; level: number } {
    let level = this.#startLevel;
    const top = Math.floor(gfn / PAGES_AT[level]!);
    let pfn = this.rootPfn + Math.floor(top / ENTRIES);
    let index = top % ENTRIES;
    while (level < to) {
      const [low, high] = this.#read(pfn, index);
      if ((low & 3) !== (VALID | TABLE_OR_PAGE)) break;
      pfn = outputPfn(low, high);
      level++;
      index = Math.floor(gfn / PAGES_AT[level]!) % ENTRIES;
    }
    return { pfn, index, level };
  }

  /** The entry of `level` for `gfn`, through tables that are made where they are missing. */
  #descend(gfn: number, to: number, take: TablePages): { pfn: number; index: number } {
    for (;;) {
      const entry = this.#walk(gfn, to);
      if (entry.level >= to) return entry;
      const table = take();
      if (table === undefined) throw new Error('no page for a stage-2 table, though there was to be one');
      this.#write(entry.pfn, entry.index, VALID | TABLE_OR_PAGE | lowAddress(table), highAddress(table));
    }
  }

  #read(pfn: number, index: number): [low: number, high: number] {
    const words = this.#memory.map(pfn, 0).frame / 4 + 2 * index;
    const { words32 } = this.#memory.frames;
    return [words32[words]!, words32[words + 1]!];
  }

  #write(pfn: number, index: number, low: number, high: number): void {
    const words = this.#memory.map(pfn, 0).frame / 4 + 2 * index;
    const { words32 } = this.#memory.frames;
    words32[words] = low;
    words32[words + 1] = high;
  }
}

function startLevel(ipaBits: number): number {
  return ipaBits > 43 ? 0 : 1;
}

function leafLevel(pages: number): number {
  return pages === 1 ? LAST_LEVEL : LAST_LEVEL - 1;
}

/** Bits 31:12 and 47:32 of the address of a page. */
function lowAddress(pfn: number): number {
  return (pfn % 2 ** 20) * PAGE_4K;
}

function highAddress(pfn: number): number {
  return Math.floor(pfn / 2 ** 20);
}

function outputPfn(low: number, high: number): number {
  return (low >>> 12) + (high & 0xffff) * 2 ** 20;
}
