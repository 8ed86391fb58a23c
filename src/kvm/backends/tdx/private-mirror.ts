/**
 * What KVM knows of a TD's secure EPT, which it cannot read: its tables and the pages they map (the mirror page table).
 * Eight bytes a page in ranges of 2 MiB that were used, nothing for others.
 */
import { offsetIn } from '../../../abi/address.ts';

/** 4 KiB pages in a range of 2 MiB. @internal */
export const PAGES_IN_RANGE = 512;
/** No page is mapped: a page frame number that no machine has. */
const NONE = -1;
/** Level of the tables whose entries map 2 MiB; tables of level 1 map 4 KiB and are `LeafTable`s. */
const FIRST_UPPER_LEVEL = 2;

/** A table that maps 4 KiB pages. @internal */
export interface LeafTable {
  /** Address of the page that the module has for it. */
  readonly page: number;
  /** Page frame numbers; NONE where nothing is mapped. */
  readonly pfns: Float64Array;
  mapped: number;
}

/** Ranges are numbered by guest frame / 512. @internal */
export class PrivateMirror {
  readonly #tables = new Map<number, LeafTable>();
  readonly #large = new Map<number, number>();
  /** By level: page of the table by number of what it maps. */
  readonly #upper: Map<number, number>[] = [];
  #mapped = 0;

  /** 4 KiB pages mapped, those in large ones included. */
  get mapped(): number {
    return this.#mapped;
  }

  table(range: number): LeafTable | undefined {
    return this.#tables.get(range);
  }

  /** Page frame number of the 2 MiB page that maps `range`, or undefined. */
  large(range: number): number | undefined {
    return this.#large.get(range);
  }

  /** Page frame number that `gfn` maps to, or undefined. */
  pfn(gfn: number): number | undefined {
    const range = rangeOf(gfn);
    const index = offsetIn(gfn, PAGES_IN_RANGE);
    const large = this.#large.get(range);
    if (large !== undefined) return large + index;
    const pfn = this.#tables.get(range)?.pfns[index] ?? NONE;
    return pfn === NONE ? undefined : pfn;
  }

  /** Ranges of [startRange, endRange) that map something, ascending. */
  usedRanges(startRange: number, endRange: number): readonly number[] {
    const used: number[] = [];
    const consider = (range: number): void => {
      if (this.#large.has(range) || (this.#tables.get(range)?.mapped ?? 0) > 0) used.push(range);
    };
    if (endRange - startRange <= this.#tables.size + this.#large.size) {
      for (let range = startRange; range < endRange; range++) consider(range);
      return used;
    }
    for (const map of [this.#tables, this.#large]) {
      for (const range of map.keys()) if (startRange <= range && range < endRange) consider(range);
    }
    return used.sort((a, b) => a - b);
  }

  add(table: LeafTable, index: number, pfn: number): void {
    table.pfns[index] = pfn;
    table.mapped++;
    this.#mapped++;
  }

  remove(table: LeafTable, index: number): void {
    table.pfns[index] = NONE;
    table.mapped--;
    this.#mapped--;
  }

  addLarge(range: number, pfn: number): void {
    this.#large.set(range, pfn);
    this.#mapped += PAGES_IN_RANGE;
  }

  removeLarge(range: number): void {
    this.#large.delete(range);
    this.#mapped -= PAGES_IN_RANGE;
  }

  addTable(range: number, page: number): LeafTable {
    const table = { page, pfns: new Float64Array(PAGES_IN_RANGE).fill(NONE), mapped: 0 };
    this.#tables.set(range, table);
    return table;
  }

  /** A large page has become 512 small ones in a table of their own. */
  split(range: number, page: number): void {
    const first = this.#large.get(range)!;
    this.removeLarge(range);
    const table = this.addTable(range, page);
    for (let i = 0; i < PAGES_IN_RANGE; i++) this.add(table, i, first + i);
  }

  /** 512 small pages have become a large one; their table is gone. */
  join(range: number): void {
    const table = this.#tables.get(range)!;
    this.#mapped -= table.mapped;
    this.#tables.delete(range);
    this.addLarge(range, table.pfns[0]!);
  }

  hasUpper(level: number, index: number): boolean {
    return this.#upper[level - FIRST_UPPER_LEVEL]?.has(index) === true;
  }

  addUpper(level: number, index: number, page: number): void {
    const at = level - FIRST_UPPER_LEVEL;
    while (this.#upper.length <= at) this.#upper.push(new Map());
    this.#upper[at]!.set(index, page);
  }

  /** Pages of all tables, lowest level first. */
  *tablePages(): Generator<number, void> {
    for (const { page } of this.#tables.values()) yield page;
    for (const level of this.#upper) yield* level.values();
  }

  /** Forgets the tables, whose pages are gone. */
  clearTables(): void {
    this.#tables.clear();
    this.#upper.length = 0;
  }
}

/** Number of the 2 MiB range that holds a guest frame. @internal */
export function rangeOf(gfn: number): number {
  return Math.floor(gfn / PAGES_IN_RANGE);
}
