/**
 * Page metadata of one 1 GiB block of a TDMR. An entry table exists from the first look at its 2 MiB range on,
 * so that a host's bring-up costs nothing per page.
 */
import { index2m, index4k, PAGE_1G, PAGE_2M, PAGE_4K, pfnOf } from '../abi/address.ts';
import { LEVEL_1G, LEVEL_2M, LEVEL_4K, PAGE_TYPE, type PageLevel, type PageType } from '../abi/page-types.ts';
import { type LockMode, promoteHpLock, releaseHpLock, tryHpLock } from './locks.ts';
import type { Tdmr } from './tdmr-table.ts';

/** Bytes of one entry. @public */
export const PAMT_ENTRY_SIZE = 16;
/** Children of an entry: 4 KiB pages in 2 MiB, 2 MiB pages in 1 GiB. @public */
export const PAMT_CHILDREN = 512;
/** A 2 MiB entry with a page pair keeps the pages' numbers above bit 27 of its halves (facts: PAMT table). */
const PAIR_SHIFT = 28n;
const OWNER_BITS_BELOW_PAIR = 16;
const PAGE_COUNT_MASK = 0x3ff;

/** Columns of a run of PAMT entries. @internal */
export class EntryTable {
  readonly locks: Uint16Array;
  readonly types: Uint8Array;
  /** Page frame number of the owner's TDR. */
  readonly owners: Float64Array;
  readonly epochs: BigUint64Array;
  readonly epochHalves: Uint32Array;

  constructor(entries: number) {
    this.locks = new Uint16Array(entries);
    this.types = new Uint8Array(entries);
    this.owners = new Float64Array(entries);
    this.epochs = new BigUint64Array(entries);
    this.epochHalves = new Uint32Array(this.epochs.buffer);
  }

  /** State for a saved machine. */
  save() {
    const { locks, types, owners, epochs } = this;
    return { locks, types, owners, epochs };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<EntryTable['save']>): void {
    this.locks.set(saved.locks);
    this.types.set(saved.types);
    this.owners.set(saved.owners);
    this.epochs.set(saved.epochs);
  }
}

/** One PAMT entry. Writing `type` leaves the other fields as they were, as the module does. @public */
export class PamtEntry {
  readonly #table: EntryTable;
  readonly #index: number;

  constructor(table: EntryTable, index: number) {
    this.#table = table;
    this.#index = index;
  }

  get type(): PageType {
    return this.#table.types[this.#index] as PageType;
  }

  set type(type: PageType) {
    this.#table.types[this.#index] = type;
  }

  /** Physical address of the owning TD's TDR; keeps its last value when the page is given back. */
  get owner(): number {
    return this.#table.owners[this.#index]! * PAGE_4K;
  }

  set owner(tdr: number) {
    this.#table.owners[this.#index] = tdr / PAGE_4K;
  }

  /** Epoch at which the page was blocked, or its migration epoch. */
  get bepoch(): bigint {
    return this.#table.epochs[this.#index]!;
  }

  set bepoch(epoch: bigint) {
    this.#table.epochs[this.#index] = epoch;
  }

  /** TDX_SUCCESS, TDX_OPERAND_BUSY or TDX_OPERAND_BUSY_HOST_PRIORITY. */
  tryLock(mode: LockMode, guest = false): bigint {
    return tryHpLock(this.#table.locks, this.#index, mode, guest);
  }

  /** Makes the caller's shared lock exclusive: TDX_SUCCESS or TDX_OPERAND_BUSY. */
  promoteLock(): bigint {
    return promoteHpLock(this.#table.locks, this.#index);
  }

  unlock(mode: LockMode): void {
    releaseHpLock(this.#table.locks, this.#index, mode);
  }

  /** The raw lock word, for fault injection. */
  set lockWord(word: number) {
    this.#table.locks[this.#index] = word;
  }

  /** Addresses of the two pages that hold the 4 KiB entries of a 2 MiB range of type PAMT. */
  get pagePair(): readonly [number, number] {
    const first = Math.floor(this.#table.owners[this.#index]! / OWNER_BITS_BELOW_PAIR);
    const second = Number(this.#table.epochs[this.#index]! >> PAIR_SHIFT);
    return [first * PAGE_4K, second * PAGE_4K];
  }

  /** Makes this 2 MiB entry one of type PAMT with `usedPages` of its 4 KiB pages in use. */
  setPagePair(first: number, second: number, usedPages: number): void {
    const owners = this.#table.owners;
    const kept = owners[this.#index]! % OWNER_BITS_BELOW_PAIR;
    owners[this.#index] = (first / PAGE_4K) * OWNER_BITS_BELOW_PAIR + kept;
    this.#table.epochs[this.#index] = (BigInt(second / PAGE_4K) << PAIR_SHIFT) | BigInt(usedPages);
    this.type = PAGE_TYPE.PAMT;
  }

  /** 4 KiB pages in use under a 2 MiB entry of type PAMT. */
  get usedPages(): number {
    return this.#table.epochHalves[2 * this.#index]! & PAGE_COUNT_MASK;
  }

  set usedPages(count: number) {
    const halves = this.#table.epochHalves;
    halves[2 * this.#index] = (halves[2 * this.#index]! & ~PAGE_COUNT_MASK) | count;
  }
}

/** An entry that is not free, and the page it describes. @public */
export interface TypedEntry {
  readonly address: number;
  readonly level: PageLevel;
  readonly entry: PamtEntry;
}

/** @public */
export class PamtBlock {
  readonly base: number;
  readonly tdmr: Tdmr;
  readonly #dynamic: boolean;
  /** @internal */
  readonly table1g = new EntryTable(1);
  /** @internal */
  readonly table2m = new EntryTable(PAMT_CHILDREN);
  readonly #entries4k: (EntryTable | undefined)[] = new Array(PAMT_CHILDREN);
  /** Dynamic PAMT, by 2 MiB range: one flag per 4 KiB page that is reserved or lent to hold metadata. */
  readonly #lent: (Uint8Array | undefined)[] = [];

  constructor(base: number, tdmr: Tdmr, dynamic: boolean) {
    this.base = base;
    this.tdmr = tdmr;
    this.#dynamic = dynamic;
  }

  /** Type of an entry at `level` whose pages are described one level further down. */
  nodeType(level: PageLevel): PageType {
    return this.#dynamic && level === LEVEL_2M ? PAGE_TYPE.PAMT : PAGE_TYPE.NDA;
  }

  /** The entry of the page at `address` at `level`. */
  entry(address: number, level: PageLevel): PamtEntry {
    if (level === LEVEL_1G) return new PamtEntry(this.table1g, 0);
    const range = index2m(address);
    if (level === LEVEL_2M) return new PamtEntry(this.table2m, range);
    return new PamtEntry(this.table4k(range), index4k(address));
  }

  /** Where in memory the entry of the page at `address` and `level` is kept; with dynamic PAMT its bit in the bitmap. */
  entryAddress(address: number, level: PageLevel): number {
    const offset = address - this.tdmr.base;
    if (level === LEVEL_1G) return this.tdmr.pamt1gBase + Math.floor(offset / PAGE_1G) * PAMT_ENTRY_SIZE;
    if (level === LEVEL_2M) return this.tdmr.pamt2mBase + Math.floor(offset / PAGE_2M) * PAMT_ENTRY_SIZE;
    const page = pfnOf(offset);
    return this.tdmr.pamt4kBase + (this.#dynamic ? Math.floor(page / 8) : page * PAMT_ENTRY_SIZE);
  }

  /** Forgets the 4 KiB entries of the 2 MiB range at `address`: they are all NDA again. */
  clear4k(address: number): void {
    this.#entries4k[index2m(address)] = undefined;
  }

  /** Gives every child of the entry at `address` and `level` the same type and owner. */
  fillChildren(address: number, level: PageLevel, type: PageType, owner: number): void {
    const children = level === LEVEL_1G ? this.table2m : this.table4k(index2m(address));
    children.types.fill(type);
    children.owners.fill(owner / PAGE_4K);
    children.epochs.fill(0n);
  }

  /** Changes the type of every child of the entry at `address` and `level`; owners stay as they were. */
  retypeChildren(address: number, level: PageLevel, type: PageType): void {
    const children = level === LEVEL_1G ? this.table2m : this.table4k(index2m(address));
    children.types.fill(type);
  }

  /** True when none of the 4 KiB pages of the 2 MiB range at `address` is in use, lent or reserved. */
  is2mRangeFree(address: number): boolean {
    const inUse = this.#dynamic ? this.#lentFlags(index2m(address)) : this.table4k(index2m(address)).types;
    return inUse.every((value) => value === 0);
  }

  /** Which of the two pages of a page pair, 0 or 1, has an entry in use; undefined when neither has. */
  usedHalf(address: number): 0 | 1 | undefined {
    const types = this.table4k(index2m(address)).types;
    const used = types.findIndex((type) => type !== PAGE_TYPE.NDA);
    if (used < 0) return undefined;
    return used < PAMT_CHILDREN / 2 ? 0 : 1;
  }

  /** Dynamic PAMT: the page at `address` holds metadata, or is reserved. */
  isLent(address: number): boolean {
    if (!this.#dynamic) return false;
    const flags = this.#lentFlags(index2m(address));
    return flags[index4k(address)] === 1;
  }

  setLent(address: number, lent: boolean): void {
    const flags = this.#lentFlags(index2m(address));
    flags[index4k(address)] = lent ? 1 : 0;
  }

  /**
   * Entries with a type, ascending: pages somebody owns, reserved ones, page pairs. Looks without making tables, so
   * that looking changes nothing.
   */
  *typedEntries(): IterableIterator<TypedEntry> {
    yield* typedIn(this.table1g, this.base, LEVEL_1G, PAGE_1G);
    yield* typedIn(this.table2m, this.base, LEVEL_2M, PAGE_2M);
    for (const [i, table] of made(this.#entries4k)) {
      yield* typedIn(table, this.base + i * PAGE_2M, LEVEL_4K, PAGE_4K);
    }
  }

  /** State for a saved machine, without the TDMR: that is shared by many blocks. */
  save() {
    return {
      base: this.base,
      dynamic: this.#dynamic,
      table1g: this.table1g.save(),
      table2m: this.table2m.save(),
      entries4k: new Map(made(this.#entries4k).map(([i, table]) => [i, table.save()])),
      lent: new Map(made(this.#lent)),
    };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<PamtBlock['save']>): void {
    this.table1g.restore(saved.table1g);
    this.table2m.restore(saved.table2m);
    for (const [i, table] of saved.entries4k) {
      const entries = new EntryTable(PAMT_CHILDREN);
      entries.restore(table);
      this.#entries4k[i] = entries;
    }
    for (const [i, flags] of saved.lent) this.#lent[i] = flags;
  }

  #lentFlags(index: number): Uint8Array {
    const existing = this.#lent[index];
    if (existing !== undefined) return existing;
    const flags = new Uint8Array(PAMT_CHILDREN);
    this.#fillReserved(flags, this.base + index * PAGE_2M, 1);
    this.#lent[index] = flags;
    return flags;
  }

  /** The 4 KiB entries of 2 MiB range `index` of the block, made when first looked at. @internal */
  table4k(index: number): EntryTable {
    const existing = this.#entries4k[index];
    if (existing !== undefined) return existing;
    const table = new EntryTable(PAMT_CHILDREN);
    if (!this.#dynamic) this.#fillReserved(table.types, this.base + index * PAGE_2M, PAGE_TYPE.RSVD);
    this.#entries4k[index] = table;
    return table;
  }

  #fillReserved(column: Uint8Array, start: number, value: number): void {
    for (const area of this.tdmr.reserved) {
      const from = Math.max(0, (area.start - start) / PAGE_4K);
      const to = Math.min(column.length, (area.end - start) / PAGE_4K);
      if (from < to) column.fill(value, from, to);
    }
  }
}

function* typedIn(
  table: EntryTable,
  start: number,
  level: PageLevel,
  pageSize: number,
): IterableIterator<TypedEntry> {
  for (const [i, type] of table.types.entries()) {
    if (type !== PAGE_TYPE.NDA) {
      yield { address: start + i * pageSize, level, entry: new PamtEntry(table, i) };
    }
  }
}

/** Those of the tables that were made, with their numbers. */
function made<T>(sparse: readonly (T | undefined)[]): [number, T][] {
  return [...sparse.entries()].filter((pair): pair is [number, T] => pair[1] !== undefined);
}
