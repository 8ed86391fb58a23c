/**
 * Which page frame holds which page of a file. Costs memory for pages that are there: a chunk of 2 MiB is a single
 * number when one allocation fills it, a small map while few of its pages exist, a typed array when many do.
 */

/** Pages in a chunk of 2 MiB. @public */
export const CHUNK_PAGES = 512;
/** Order of an allocation that fills a chunk. @public */
export const CHUNK_ORDER = 9;
/** From here on an array of 4 KiB is smaller than a map. */
const DENSE_FROM = 64;
/** A page that is not there, in arrays. */
const NONE = -1;

/** Pages of a file from one allocation: a single one, or as many as asked of one that fills its chunk. @public */
export interface PageRun {
  readonly index: number;
  readonly pfn: number;
  readonly pages: number;
}

interface DenseChunk {
  readonly pfns: Float64Array;
  pages: number;
}

/** First page frame of a contiguous, aligned chunk; or page frames by page number within the chunk. */
type Chunk = number | Map<number, number> | DenseChunk;

/** @internal */
export class PageIndex {
  readonly #chunks = new Map<number, Chunk>();
  #pages = 0;

  /** Pages that are there. */
  get pages(): number {
    return this.#pages;
  }

  /** Page frame of the page at `index`. */
  get(index: number): number | undefined {
    const number = Math.floor(index / CHUNK_PAGES);
    const chunk = this.#chunks.get(number);
    return chunk === undefined ? undefined : pageIn(chunk, index - number * CHUNK_PAGES);
  }

  /** True when one contiguous allocation, aligned to its size, holds the chunk around `index`. */
  isHuge(index: number): boolean {
    return typeof this.#chunks.get(Math.floor(index / CHUNK_PAGES)) === 'number';
  }

  /** True when no page of the chunk around `index` is there. */
  isHole(index: number): boolean {
    return !this.#chunks.has(Math.floor(index / CHUNK_PAGES));
  }

  /** Puts a page where none is. */
  add(index: number, pfn: number): void {
    const number = Math.floor(index / CHUNK_PAGES);
    const page = index - number * CHUNK_PAGES;
    const chunk = this.#chunks.get(number);
    this.#pages++;
    if (chunk === undefined) this.#chunks.set(number, new Map([[page, pfn]]));
    else if (chunk instanceof Map) {
      chunk.set(page, pfn);
      if (chunk.size >= DENSE_FROM) this.#chunks.set(number, denseOf(chunk));
    } else if (typeof chunk !== 'number') {
      chunk.pfns[page] = pfn;
      chunk.pages++;
    }
  }

  /** Puts 512 contiguous pages where none is; `index` is the first of a chunk. */
  addHuge(index: number, pfn: number): void {
    this.#chunks.set(index / CHUNK_PAGES, pfn);
    this.#pages += CHUNK_PAGES;
  }

  /** Takes the pages of [start, end) out. Returns them, ascending. */
  remove(start: number, end: number): PageRun[] {
    const taken = this.runs(start, end);
    for (const number of this.#chunksIn(start, end)) {
      const base = number * CHUNK_PAGES;
      if (start <= base && base + CHUNK_PAGES <= end) this.#chunks.delete(number);
      else this.#cut(number, Math.max(start - base, 0), Math.min(end - base, CHUNK_PAGES));
    }
    for (const { pages } of taken) this.#pages -= pages;
    return taken;
  }

  /** Pages in [start, end), ascending. */
  runs(start: number, end: number): PageRun[] {
    const found: PageRun[] = [];
    for (const number of this.#chunksIn(start, end)) {
      const base = number * CHUNK_PAGES;
      const from = Math.max(start - base, 0);
      const to = Math.min(end - base, CHUNK_PAGES);
      addRuns(found, this.#chunks.get(number)!, base, from, to);
    }
    return found;
  }

  /** Index of the page in frame `pfn`. */
  indexOf(pfn: number): number | undefined {
    for (const run of this.runs(0, Number.MAX_SAFE_INTEGER)) {
      if (run.pfn <= pfn && pfn < run.pfn + run.pages) return run.index + pfn - run.pfn;
    }
    return undefined;
  }

  /** Makes single pages of the chunk around `index` if one allocation fills it. */
  split(index: number): void {
    const number = Math.floor(index / CHUNK_PAGES);
    const chunk = this.#chunks.get(number);
    if (typeof chunk !== 'number') return;
    const pfns = Float64Array.from({ length: CHUNK_PAGES }, (_, page) => chunk + page);
    this.#chunks.set(number, { pfns, pages: CHUNK_PAGES });
  }

  /** Numbers of the chunks that share an index with [start, end), ascending. */
  #chunksIn(start: number, end: number): number[] {
    const first = Math.floor(start / CHUNK_PAGES);
    const last = Math.ceil(end / CHUNK_PAGES);
    if (last - first > this.#chunks.size) {
      const numbers = [...this.#chunks.keys()].filter((number) => first <= number && number < last);
      return numbers.sort((a, b) => a - b);
    }
    const numbers: number[] = [];
    for (let number = first; number < last; number++) if (this.#chunks.has(number)) numbers.push(number);
    return numbers;
  }

  /** Forgets pages [from, to) of a chunk. */
  #cut(number: number, from: number, to: number): void {
    this.split(number * CHUNK_PAGES);
    const chunk = this.#chunks.get(number)!;
    if (chunk instanceof Map) {
      for (const page of [...chunk.keys()]) if (from <= page && page < to) chunk.delete(page);
      if (chunk.size === 0) this.#chunks.delete(number);
    } else if (typeof chunk !== 'number') {
      for (let page = from; page < to; page++) {
        if (chunk.pfns[page] === NONE) continue;
        chunk.pfns[page] = NONE;
        chunk.pages--;
      }
      if (chunk.pages === 0) this.#chunks.delete(number);
    }
  }
}

function denseOf(chunk: ReadonlyMap<number, number>): DenseChunk {
  const pfns = new Float64Array(CHUNK_PAGES).fill(NONE);
  for (const [page, pfn] of chunk) pfns[page] = pfn;
  return { pfns, pages: chunk.size };
}

function pageIn(chunk: Chunk, page: number): number | undefined {
  if (typeof chunk === 'number') return chunk + page;
  if (chunk instanceof Map) return chunk.get(page);
  const pfn = chunk.pfns[page]!;
  return pfn === NONE ? undefined : pfn;
}

/** Adds pages [from, to) of the chunk that begins at index `base`. */
function addRuns(found: PageRun[], chunk: Chunk, base: number, from: number, to: number): void {
  if (typeof chunk === 'number') {
    found.push({ index: base + from, pfn: chunk + from, pages: to - from });
    return;
  }
  for (let page = from; page < to; page++) {
    const pfn = pageIn(chunk, page);
    if (pfn !== undefined) found.push({ index: base + page, pfn, pages: 1 });
  }
}
