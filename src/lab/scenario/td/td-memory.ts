/** The private memory of one TD and its secure EPT: given from guest address 0 up, in 2 MiB pages where there are any. */
import { offsetIn, PAGE_2M, PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { TDH } from '../../../abi/leaves.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { TdHost } from './td-host.ts';

/** Order and SEPT level of a 2 MiB page. */
const LARGE_ORDER = 9;
const LEVEL_2M = 1;
const PAGES_IN_2M = PAGE_2M / PAGE_4K;
/** Highest secure EPT level below the root of a 4-level tree. */
const TOP_TABLE_LEVEL = 3;
/** Bytes that a table of each level maps. */
const LEVEL_SIZES: readonly number[] = [0, 1, 2, 3].map((level) => PAGE_4K * 512 ** level);

/** Memory behind a guest address: 2 MiB or 4 KiB. @internal */
export interface Chunk {
  readonly gpa: number;
  readonly address: number;
  readonly order: number;
}

/** @internal */
export class TdMemory {
  readonly tables: number[] = [];
  /** In order of guest addresses. */
  readonly chunks: Chunk[] = [];
  /** 4 KiB pages in chunks. */
  pages = 0;
  /** Places that are shared now, in the order in which they became so. */
  readonly shared: Omit<Chunk, 'address'>[] = [];
  readonly #host: TdHost;
  readonly #tdr: number;
  readonly #keyId: number;
  readonly #node: number | undefined;
  readonly #present: readonly Set<number>[] = LEVEL_SIZES.map(() => new Set());
  /** First guest address above everything that is private or shared. */
  #end = 0;

  constructor(host: TdHost, tdr: number, keyId: number, node: number | undefined) {
    this.#host = host;
    this.#tdr = tdr;
    this.#keyId = keyId;
    this.#node = node;
  }

  /** Gives the TD `bytes` more. Throws KernelError with what was given so far kept. */
  grow(bytes: number): void {
    for (let rest = bytes; rest > 0; ) {
      const last = this.#end;
      const large = rest >= PAGE_2M && offsetIn(last, PAGE_2M) === 0 && this.#giveLarge(last);
      if (!large) this.#give(last, 0);
      rest -= large ? PAGE_2M : PAGE_4K;
    }
  }

  /**
   * Takes the last `bytes` back and remembers them as shared: block, track, remove, write back. Throws KernelError EIO
   * with the rest in place.
   */
  share(bytes: number): void {
    const { cpu } = this.#host;
    const going: Chunk[] = [];
    for (let found = 0; found < bytes && going.length < this.chunks.length; ) {
      const chunk = this.chunks[this.chunks.length - 1 - going.length]!;
      this.#host.must(cpu, TDH.memRangeBlock, chunk.gpa + levelOf(chunk), this.#tdr);
      going.push(chunk);
      found += PAGE_4K * 2 ** chunk.order;
    }
    if (going.length > 0) this.#host.must(cpu, TDH.memTrack, this.#tdr);
    for (const chunk of going) {
      this.#host.must(cpu, TDH.memPageRemove, chunk.gpa + levelOf(chunk), this.#tdr);
      this.chunks.pop();
      this.pages -= 2 ** chunk.order;
      this.shared.push({ gpa: chunk.gpa, order: chunk.order });
      this.#return(chunk);
    }
  }

  /** Makes up to `bytes` of what is shared private again, with other pages. Throws KernelError. */
  unshare(bytes: number): void {
    for (let done = 0; done < bytes; ) {
      const place = this.shared.pop();
      if (place === undefined) return;
      const { gpa, order } = place;
      try {
        if (order === 0) this.#give(gpa, 0);
        else if (!this.#giveLarge(gpa)) {
          // Page by page from now on, so that a failure leaves the rest shared.
          for (let i = PAGES_IN_2M - 1; i >= 0; i--) this.shared.push({ gpa: gpa + i * PAGE_4K, order: 0 });
          continue;
        }
      } catch (error) {
        this.shared.push(place);
        throw error;
      }
      done += PAGE_4K * 2 ** order;
    }
  }

  /** Gives back a page that the module has removed; one whose lines may still be in a cache is leaked. Throws EIO. */
  #return({ address, order }: Chunk): void {
    const { cpu } = this.#host;
    try {
      this.#host.writeBack(cpu, address, this.#keyId, order);
    } catch (error) {
      this.#host.leakedPages += 2 ** order;
      throw error;
    }
    this.#host.reset(cpu, address, order);
  }

  /** Forgets what is shared: a balloon keeps it. */
  forgetShared(): void {
    this.shared.length = 0;
    const last = this.chunks.at(-1);
    this.#end = last === undefined ? 0 : last.gpa + PAGE_4K * 2 ** last.order;
  }

  /** A chunk that has a page in `[start, end)`. */
  chunkIn(start: number, end: number): Chunk | undefined {
    return this.chunks.find(({ address, order }) => address < end && start < address + PAGE_4K * 2 ** order);
  }

  /** False when no 2 MiB are free in one piece, and where a table for small pages is already. */
  #giveLarge(gpa: number): boolean {
    if (this.#present[1]!.has(gpa / PAGE_2M)) return false;
    this.#makeTables(gpa, 2);
    try {
      this.#give(gpa, LARGE_ORDER);
      return true;
    } catch (error) {
      // A wrong page is refused whatever its size.
      const isShortage = error instanceof KernelError && error.errno === 'ENOMEM';
      if (isShortage && error.reason.code !== 'page-not-tdx') return false;
      throw error;
    }
  }

  #give(gpa: number, order: number): void {
    const host = this.#host;
    const { cpu } = host;
    this.#makeTables(gpa, order === 0 ? 1 : 2);
    const address = host.take(cpu, order, 'td-memory', this.#node);
    const level = order === 0 ? 0 : LEVEL_2M;
    const status = host.call(cpu, TDH.memPageAug, gpa + level, this.#tdr, address);
    if (status !== STATUS.TDX_SUCCESS) {
      const refusal = host.refusal(TDH.memPageAug, status, address);
      host.give(cpu, address, order);
      throw refusal;
    }
    this.chunks.push({ gpa, address, order });
    this.pages += 2 ** order;
    this.#end = Math.max(this.#end, gpa + PAGE_4K * 2 ** order);
  }

  #makeTables(gpa: number, lowest: number): void {
    if (this.#present[lowest]!.has(Math.floor(gpa / LEVEL_SIZES[lowest]!))) return;
    const host = this.#host;
    const { cpu } = host;
    for (let level = TOP_TABLE_LEVEL; level >= lowest; level--) {
      const index = Math.floor(gpa / LEVEL_SIZES[level]!);
      if (this.#present[level]!.has(index)) continue;
      const page = host.take(cpu, 0, 'td-sept', this.#node);
      const status = host.call(cpu, TDH.memSeptAdd, index * LEVEL_SIZES[level]! + level, this.#tdr, page);
      if (status !== STATUS.TDX_SUCCESS) {
        const refusal = host.refusal(TDH.memSeptAdd, status, page);
        host.give(cpu, page, 0);
        throw refusal;
      }
      this.tables.push(page);
      this.#present[level]!.add(index);
    }
  }
}

function levelOf({ order }: Pick<Chunk, 'order'>): number {
  return order === 0 ? 0 : LEVEL_2M;
}
