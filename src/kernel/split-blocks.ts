/**
 * Page bitmaps of the 4 MiB blocks of a zone that are neither wholly free nor wholly used. One block is 1024
 * bits in a slab that grows by doubling, and for each buddy order a bitmap says which blocks have a free chunk of it.
 */

/** log2 of the pages in a block, which is also the largest buddy order. @internal */
export const BLOCK_ORDER = 10;
/** Pages in a block: 4 MiB. @internal */
export const BLOCK_PAGES = 1 << BLOCK_ORDER;

const WORDS = BLOCK_PAGES / 32;
const FIRST_CAPACITY = 64;
/** log2 of the pages in a word. */
const WORD_ORDER = 5;
const FULL_WORD = 0xffff_ffff;

/** Slots whose block has a free chunk of one order. */
interface OrderIndex {
  /** One bit per slot. */
  slots: Uint32Array;
  count: number;
  /** No word of `slots` below this one has a bit set. */
  hint: number;
}

/** @internal */
export class SplitBlocks {
  #free = new Uint32Array(FIRST_CAPACITY * WORDS);
  /** Bit k: some free chunk of order k is not part of a larger free chunk. */
  #orders = new Uint16Array(FIRST_CAPACITY);
  #freePages = new Uint16Array(FIRST_CAPACITY);
  readonly #slots = new Map<number, number>();
  readonly #blockOf: number[] = [];
  readonly #recycled: number[] = [];
  readonly #index: readonly OrderIndex[] = Array.from({ length: BLOCK_ORDER }, () => ({
    slots: new Uint32Array(FIRST_CAPACITY / 32),
    count: 0,
    hint: 0,
  }));

  has(block: number): boolean {
    return this.#slots.has(block);
  }

  /** Blocks held. */
  blocks(): IterableIterator<number> {
    return this.#slots.keys();
  }

  /** Blocks held, with their free pages as counted from the bitmaps. */
  *counted(): IterableIterator<{ readonly block: number; readonly freePages: number }> {
    for (const [block, slot] of this.#slots) yield { block, freePages: this.#popcount(slot) };
  }

  get size(): number {
    return this.#slots.size;
  }

  /** Starts tracking `block`, all pages used or all free. */
  add(block: number, free: boolean): void {
    const slot = this.#recycled.pop() ?? this.#blockOf.length;
    if (slot === this.#orders.length) this.#grow();
    this.#blockOf[slot] = block;
    this.#slots.set(block, slot);
    this.#free.fill(free ? 0xffff_ffff : 0, slot * WORDS, (slot + 1) * WORDS);
    this.#freePages[slot] = free ? BLOCK_PAGES : 0;
  }

  remove(block: number): void {
    const slot = this.#slots.get(block)!;
    this.#slots.delete(block);
    this.#setOrders(slot, 0);
    this.#recycled.push(slot);
  }

  freePagesIn(block: number): number {
    return this.#freePages[this.#slots.get(block)!]!;
  }

  /** True when all `count` pages from `from` on are in the wanted state. */
  allAre(block: number, from: number, count: number, free: boolean): boolean {
    const base = this.#slots.get(block)! * WORDS;
    let matches = true;
    forEachWord(from, count, (word, mask) => {
      const bits = this.#free[base + word]! & mask;
      if ((free ? bits >>> 0 !== mask >>> 0 : bits !== 0) === true) matches = false;
    });
    return matches;
  }

  isFree(block: number, page: number): boolean {
    return this.#bit(this.#slots.get(block)!, page);
  }

  /** Marks pages free or used. They must have been in the other state. */
  mark(block: number, from: number, count: number, free: boolean): void {
    if (!this.allAre(block, from, count, !free)) {
      throw new Error(
        `pages ${from}..${from + count} of block ${block} are ${free ? 'free' : 'used'} already`,
      );
    }
    const slot = this.#slots.get(block)!;
    const base = slot * WORDS;
    forEachWord(from, count, (word, mask) => {
      const index = base + word;
      this.#free[index] = free ? this.#free[index]! | mask : this.#free[index]! & ~mask;
    });
    this.#freePages[slot] = this.#freePages[slot]! + (free ? count : -count);
    this.#refreshOrders(slot);
  }

  /** Pages of `block` that are in the runs of free pages, as [from, count]. */
  freeRuns(block: number, from: number, count: number): readonly (readonly [from: number, count: number])[] {
    const slot = this.#slots.get(block)!;
    const runs: [number, number][] = [];
    for (let page = from; page < from + count; page++) {
      if (!this.#bit(slot, page)) continue;
      const last = runs.at(-1);
      if (last !== undefined && last[0] + last[1] === page) last[1]++;
      else runs.push([page, 1]);
    }
    return runs;
  }

  /** The lowest-numbered chunk of the smallest order that is at least `order`; undefined when no block has one. */
  find(order: number): { readonly block: number; readonly page: number } | undefined {
    for (let k = order; k < BLOCK_ORDER; k++) {
      const index = this.#index[k]!;
      if (index.count === 0) continue;
      while (index.slots[index.hint] === 0) index.hint++;
      const bits = index.slots[index.hint]!;
      const slot = index.hint * 32 + lowestBit(bits);
      return { block: this.#blockOf[slot]!, page: this.#chunkIn(slot, k) };
    }
    return undefined;
  }

  /** State for a saved machine. */
  save() {
    return {
      free: this.#free,
      orders: this.#orders,
      freePages: this.#freePages,
      slots: this.#slots,
      blockOf: this.#blockOf,
      recycled: this.#recycled,
      index: this.#index,
    };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<SplitBlocks['save']>): void {
    this.#free = saved.free;
    this.#orders = saved.orders;
    this.#freePages = saved.freePages;
    for (const [block, slot] of saved.slots) this.#slots.set(block, slot);
    this.#blockOf.push(...saved.blockOf);
    this.#recycled.push(...saved.recycled);
    for (const [order, index] of saved.index.entries()) Object.assign(this.#index[order]!, index);
  }

  /** The first maximal free chunk of `order` in a block that has one. */
  #chunkIn(slot: number, order: number): number {
    if (order >= WORD_ORDER) return 32 * lowestBit(chunkStarts(this.#fullWords(slot), order - WORD_ORDER));
    for (let word = 0; word < WORDS; word++) {
      const starts = chunkStarts(this.#free[slot * WORDS + word]!, order);
      if (starts !== 0) return 32 * word + lowestBit(starts);
    }
    throw new Error(`block ${this.#blockOf[slot]} claims a free chunk of order ${order} and has none`);
  }

  #bit(slot: number, page: number): boolean {
    return ((this.#free[slot * WORDS + (page >>> 5)]! >>> (page & 31)) & 1) === 1;
  }

  #refreshOrders(slot: number): void {
    let orders = 0;
    let full = 0;
    for (let word = 0; word < WORDS; word++) {
      const bits = this.#free[slot * WORDS + word]!;
      if (bits === FULL_WORD) full |= 1 << word;
      else if (bits !== 0) orders |= chunkOrders(bits);
    }
    orders |= chunkOrders(full) << WORD_ORDER;
    this.#setOrders(slot, orders);
  }

  /** One bit per word of a block whose pages are all free. */
  #fullWords(slot: number): number {
    let full = 0;
    for (let word = 0; word < WORDS; word++)
      if (this.#free[slot * WORDS + word] === FULL_WORD) full |= 1 << word;
    return full;
  }

  #setOrders(slot: number, orders: number): void {
    const changed = orders ^ this.#orders[slot]!;
    this.#orders[slot] = orders;
    const word = slot >>> 5;
    for (let k = 0; k < BLOCK_ORDER; k++) {
      if (((changed >>> k) & 1) === 0) continue;
      const index = this.#index[k]!;
      const gained = ((orders >>> k) & 1) === 1;
      index.slots[word] = index.slots[word]! ^ (1 << (slot & 31));
      index.count += gained ? 1 : -1;
      if (gained && word < index.hint) index.hint = word;
    }
  }

  #popcount(slot: number): number {
    let pages = 0;
    for (let page = 0; page < BLOCK_PAGES; page++) if (this.#bit(slot, page)) pages++;
    return pages;
  }

  #grow(): void {
    const capacity = this.#orders.length * 2;
    this.#free = resized(new Uint32Array(capacity * WORDS), this.#free);
    this.#orders = resized(new Uint16Array(capacity), this.#orders);
    this.#freePages = resized(new Uint16Array(capacity), this.#freePages);
    for (const index of this.#index) index.slots = resized(new Uint32Array(capacity / 32), index.slots);
  }
}

function resized<T extends Uint16Array | Uint32Array>(larger: T, old: T): T {
  larger.set(old);
  return larger;
}

/** Number of the lowest bit that is set. */
function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}

/** Orders 0..4 that have a maximal aligned run of ones in a 32-bit word; bit 5 when the word is all ones. */
function chunkOrders(word: number): number {
  let orders = 0;
  let runs = word;
  // At level k a set bit stands for a run of 2^k ones that starts at its position.
  for (let k = 0; k < WORD_ORDER; k++) {
    const pairs = pairsOf(runs, k);
    if ((runs & ~(pairs | (pairs << (1 << k)))) !== 0) orders |= 1 << k;
    runs = pairs;
  }
  return runs !== 0 ? orders | (1 << WORD_ORDER) : orders;
}

/** Where the maximal aligned runs of 2^order ones in a word start, order 0..5. */
function chunkStarts(word: number, order: number): number {
  let runs = word;
  for (let k = 0; k < order; k++) runs = pairsOf(runs, k);
  if (order === WORD_ORDER) return runs;
  const pairs = pairsOf(runs, order);
  return runs & ~(pairs | (pairs << (1 << order)));
}

/** Of runs of 2^k ones those that start an aligned run of twice the length. */
function pairsOf(runs: number, k: number): number {
  return runs & (runs >>> (1 << k)) & PAIR_STARTS[k]!;
}

/** Positions where an aligned run of 2, 4, 8, 16 and 32 bits may start. */
const PAIR_STARTS = [0x5555_5555, 0x1111_1111, 0x0101_0101, 0x0001_0001, 0x0000_0001] as const;

/** Visits the 32-bit words that hold pages `[from, from + count)` with the mask of those pages. */
function forEachWord(from: number, count: number, visit: (word: number, mask: number) => void): void {
  for (let page = from; page < from + count; ) {
    const bit = page & 31;
    const width = Math.min(32 - bit, from + count - page);
    visit(page >>> 5, width === 32 ? 0xffff_ffff : ((1 << width) - 1) << bit);
    page += width;
  }
}
