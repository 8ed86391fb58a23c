/** A file in memory without a name: memfd_create, and what is behind shared anonymous memory. */
import { PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { FALLOC_FL } from '../../abi/system-call-flags.ts';
import type { HostKernel } from '../host-kernel.ts';
import { FileMapping } from './file-mapping.ts';
import type { FileObject } from './file-object.ts';
import type { AreaOperations, MemoryArea, PageFault } from './memory-area.ts';
import { allocPolicyPage } from './mempolicy.ts';
import { SharedPolicy } from './shared-policy.ts';
import type { FileStat } from './system-calls.ts';

const PAGE = BigInt(PAGE_4K);

/** @public */
export class Memfd implements FileObject, AreaOperations {
  readonly kind = 'memfd';
  readonly name: string;
  readonly inode: number;
  readonly #kernel: HostKernel;
  /** Page frames by index; the file holds a reference to each. */
  readonly #pages = new Map<number, number>();
  readonly #policy = new SharedPolicy();
  readonly #mapping = new FileMapping();
  #sizeBytes = 0n;

  constructor(kernel: HostKernel, name: string) {
    this.#kernel = kernel;
    this.name = name;
    this.inode = kernel.nextInode();
  }

  stat(): FileStat {
    return {
      inode: this.inode,
      sizeBytes: Number(this.#sizeBytes),
      blockSizeBytes: PAGE_4K,
      blocks: this.#pages.size * (PAGE_4K / 512),
      links: 0,
    };
  }

  async truncate(sizeBytes: bigint): Promise<void> {
    const shrinks = sizeBytes <= this.#sizeBytes;
    this.#sizeBytes = sizeBytes;
    if (!shrinks) return;
    const first = pagesIn(sizeBytes);
    this.#zero(sizeBytes, BigInt(first) * PAGE);
    await this.#drop(first, Number.POSITIVE_INFINITY, 'everything');
  }

  async fallocate(mode: number, offset: bigint, length: bigint): Promise<void> {
    const operation = mode & ~FALLOC_FL.KEEP_SIZE;
    if (operation !== 0 && operation !== FALLOC_FL.PUNCH_HOLE) {
      throw new KernelError('EOPNOTSUPP', 'fallocate-mode', 'a memfd has holes made or filled, no more', {
        mode,
      });
    }
    const end = offset + length;
    if (operation === FALLOC_FL.PUNCH_HOLE) return this.#punch(offset, end);
    const made: number[] = [];
    for (let index = Number(offset / PAGE); index < pagesIn(end); index++) {
      if (this.#pages.has(index)) continue;
      if (this.#page(index, 0) === null) {
        for (const page of made) await this.#drop(page, page + 1, 'everything');
        throw new KernelError('ENOSPC', 'no-memory', 'no memory is left for the file', { index });
      }
      made.push(index);
    }
    if ((mode & FALLOC_FL.KEEP_SIZE) === 0 && end > this.#sizeBytes) this.#sizeBytes = end;
  }

  mmap(area: MemoryArea): void {
    area.ops = this;
    area.mapping = this.#mapping;
  }

  fault(
    _area: MemoryArea,
    index: number,
    _write: boolean,
    { lp }: { readonly lp: { readonly node: number } },
  ): PageFault {
    if (BigInt(index) * PAGE >= this.#sizeBytes) return { signal: 'SIGBUS', reason: 'the file ends before' };
    const pfn = this.#page(index, lp.node);
    return pfn === null ? { signal: 'SIGBUS', reason: 'no memory is left' } : { pfn };
  }

  setPolicy(
    _area: MemoryArea,
    startIndex: number,
    endIndex: number,
    policy: Parameters<SharedPolicy['set']>[2],
  ): void {
    this.#policy.set(startIndex, endIndex, policy);
  }

  getPolicy(_area: MemoryArea, index: number): ReturnType<SharedPolicy['get']> {
    return this.#policy.get(index);
  }

  async read(position: bigint, lengthBytes: number): Promise<Uint8Array> {
    const left = this.#sizeBytes - position;
    if (left <= 0n) return new Uint8Array(0);
    const bytes = new Uint8Array(left < BigInt(lengthBytes) ? Number(left) : lengthBytes);
    for (const { index, offset, size, done } of pagesOf(position, bytes.length)) {
      const pfn = this.#pages.get(index);
      if (pfn !== undefined) bytes.set(this.#lp.load(pfn * PAGE_4K + offset, size), done);
    }
    return bytes;
  }

  async write(position: bigint, bytes: Uint8Array): Promise<number> {
    let written = 0;
    for (const { index, offset, size, done } of pagesOf(position, bytes.length)) {
      const pfn = this.#page(index, 0);
      if (pfn === null) break;
      this.#lp.store(pfn * PAGE_4K + offset, bytes.subarray(done, done + size));
      written = done + size;
    }
    if (written === 0 && bytes.length > 0) {
      throw new KernelError('ENOSPC', 'no-memory', 'no memory is left for the file');
    }
    const end = position + BigInt(written);
    if (written > 0 && end > this.#sizeBytes) this.#sizeBytes = end;
    return written;
  }

  async release(): Promise<void> {
    await this.#drop(0, Number.POSITIVE_INFINITY, 'everything');
  }

  get #lp() {
    return this.#kernel.cpus[0]!.lp;
  }

  /** The page, made where it is missing; null when there is no memory. */
  #page(index: number, localNode: number): number | null {
    const known = this.#pages.get(index);
    if (known !== undefined) return known;
    const policy = this.#policy.get(index);
    const pfn = allocPolicyPage(this.#kernel.pageRefs, { policy, index, localNode, purpose: 'memfd' });
    if (pfn !== null) this.#pages.set(index, pfn);
    return pfn;
  }

  /** Drops the whole pages of bytes [from, to) and zeroes the rest of them. */
  async #punch(from: bigint, to: bigint): Promise<void> {
    const first = pagesIn(from);
    const last = Number(to / PAGE);
    if (first > last) return this.#zero(from, to);
    this.#zero(from, BigInt(first) * PAGE);
    this.#zero(BigInt(last) * PAGE, to);
    await this.#drop(first, last, 'file-pages');
  }

  /** Drops pages [first, end), and mappings of them. Whoever faults meanwhile gets new ones. */
  async #drop(first: number, end: number, what: 'file-pages' | 'everything'): Promise<void> {
    const dropped: number[] = [];
    const take = (index: number): void => {
      const pfn = this.#pages.get(index);
      if (pfn !== undefined) dropped.push(pfn);
      this.#pages.delete(index);
    };
    if (end - first < this.#pages.size) for (let index = first; index < end; index++) take(index);
    else for (const index of [...this.#pages.keys()]) if (index >= first && index < end) take(index);
    await this.#mapping.unmap(first, end, what);
    for (const pfn of dropped) this.#kernel.pageRefs.put(pfn);
  }

  /** Zeroes bytes within one page. */
  #zero(from: bigint, to: bigint): void {
    const pfn = this.#pages.get(Number(from / PAGE));
    if (from >= to || pfn === undefined) return;
    this.#lp.store(pfn * PAGE_4K + Number(from % PAGE), new Uint8Array(Number(to - from)));
  }
}

/** Pages that `bytes` bytes fill or begin. */
function pagesIn(bytes: bigint): number {
  return Number((bytes + PAGE - 1n) / PAGE);
}

/** The pieces of a range of bytes by page. */
function* pagesOf(position: bigint, length: number) {
  for (let done = 0; done < length; ) {
    const at = position + BigInt(done);
    const offset = Number(at % PAGE);
    const size = Math.min(PAGE_4K - offset, length - done);
    yield { index: Number(at / PAGE), offset, size, done };
    done += size;
  }
}
