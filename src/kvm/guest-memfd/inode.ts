/**
 * The memory behind a guest_memfd. Files are views of it, one per VM: what concerns pages is here, what concerns slots
 * is theirs.
 */
import { KernelError } from '../../abi/errno.ts';
import { GUEST_MEMFD_FLAG } from '../../abi/kvm/structs.ts';
import type { HostKernel } from '../../kernel/host-kernel.ts';
import { FileMapping } from '../../kernel/process/file-mapping.ts';
import { ReadWriteLock } from '../../kernel/process/lock.ts';
import { SharedPolicy } from '../../kernel/process/shared-policy.ts';
import { allocatePages, freePages } from '../file-memory.ts';
import { RangeMap } from '../range-map.ts';
import type { GuestMemfdFile } from './file.ts';
import type { FileTechnology } from './file-technology.ts';
import { FileLife } from './life.ts';
import { CHUNK_ORDER, CHUNK_PAGES, PageIndex, type PageRun } from './page-index.ts';
import type { InvalidationKind, InvalidationReason } from './user.ts';
import type { GuestMemfdOptions } from './vm-files.ts';

/** What an inode is made with. @public */
export interface GuestMemfdInit {
  readonly kernel: HostKernel;
  readonly technology: FileTechnology;
  readonly options: GuestMemfdOptions;
  /** Size in pages; never changes. */
  readonly pages: number;
  /** Bits of GUEST_MEMFD_FLAG. */
  readonly flags: bigint;
}

/** @public */
export class GuestMemfdInode {
  readonly kernel: HostKernel;
  readonly technology: FileTechnology;
  readonly options: GuestMemfdOptions;
  readonly number: number;
  readonly pages: number;
  readonly flags: bigint;
  readonly life: FileLife;
  /** Keeps pages, attributes and bindings as they are for those who read under it. Taken after a VM's slotsLock. */
  readonly invalidateLock = new ReadWriteLock();
  /** Who maps pages in user space. */
  readonly mapping = new FileMapping();
  /** mbind's policies by page. */
  readonly policies = new SharedPolicy();
  /** Open files of this memory. */
  readonly files = new Set<GuestMemfdFile>();
  readonly #index = new PageIndex();
  /** Pages that are not private or shared as all pages were at first. */
  readonly #converted = new RangeMap<true>();

  constructor({ kernel, technology, options, pages, flags }: GuestMemfdInit) {
    this.kernel = kernel;
    this.technology = technology;
    this.options = options;
    this.number = kernel.nextInode();
    this.pages = pages;
    this.flags = flags;
    kernel.openObjects.add('guest_memfd-inode');
    kernel.memoryUsers.add(this);
    this.life = new FileLife(technology, () => this.mapping.countMapped(0, pages));
  }

  get allowsMmap(): boolean {
    return (this.flags & GUEST_MEMFD_FLAG.MMAP) !== 0n;
  }

  get isInitShared(): boolean {
    return (this.flags & GUEST_MEMFD_FLAG.INIT_SHARED) !== 0n;
  }

  /** Pages that have memory. */
  get allocatedPages(): number {
    return this.#index.pages;
  }

  /** Ranges of pages that were converted from what they were at first. */
  get convertedRanges(): number {
    return this.#converted.size;
  }

  /** Whether the host must not see the page at `index`. Holds as long as the invalidate lock is held. */
  isPrivate(index: number): boolean {
    return (this.#converted.get(index) === true) === this.isInitShared;
  }

  /** True when every page of [start, end) is private, or every one shared, as `isPrivate` says. */
  isUniform(start: number, end: number, isPrivate: boolean): boolean {
    return this.#converted.isUniform(start, end, isPrivate === this.isInitShared ? true : undefined);
  }

  /** Which guest mappings the file's pages can have: one that can be mapped serves shared accesses too. */
  get mappingKind(): InvalidationKind {
    if (this.options.inPlaceConversion) return 'both';
    if (this.isInitShared) return 'shared';
    return this.allowsMmap ? 'both' : 'private';
  }

  /** Page frame of the page at `index`, if it has memory. */
  pageAt(index: number): number | undefined {
    return this.#index.get(index);
  }

  /** Order of the allocation that holds the page at `index`: 0 or 9. */
  orderAt(index: number): number {
    return this.#index.isHuge(index) ? CHUNK_ORDER : 0;
  }

  /** Pages of [start, end) that have memory, ascending. */
  runs(start: number, end: number): readonly PageRun[] {
    return this.#index.runs(start, end);
  }

  /**
   * The page at `index`, zeroed and new when there was none, on a node that its policy says. Memory is allocated within
   * pages [start, end) only. Throws ENOMEM. Caller holds the invalidate lock.
   */
  page(index: number, localNode: number, start = 0, end = this.pages): number {
    const present = this.#index.get(index);
    if (present !== undefined) return present;
    const policy = this.policies.get(index);
    const chunk = index - (index % CHUNK_PAGES);
    const purpose = 'guest_memfd';
    const forTd = this.technology.name === 'tdx';
    const request = { kernel: this.kernel, policy, index: this.number + index, localNode, forTd, purpose };
    if (this.options.hugePages && start <= chunk && this.#isHugeHole(chunk, end)) {
      const huge = allocatePages({ ...request, order: CHUNK_ORDER });
      if (typeof huge === 'number') {
        this.#index.addHuge(chunk, huge);
        return huge + index - chunk;
      }
    }
    const pfn = allocatePages({ ...request, order: 0 });
    if (typeof pfn !== 'number') {
      throw new KernelError(
        'ENOMEM',
        pfn.code === 'no-page' ? 'gmem-no-memory' : pfn.code,
        `there is no memory for page ${index} of a guest_memfd: ${pfn.text}`,
        { ...pfn.data, index, policy },
      );
    }
    this.#index.add(index, pfn);
    return pfn;
  }

  /**
   * Gives the memory of pages [start, end) back. No guest has them mapped any more; pinned ones go when the pin does.
   * Caller holds the invalidate lock for writing, or nobody else can know the inode.
   */
  async truncate(start: number, end: number): Promise<void> {
    await this.mapping.unmap(start, end);
    for (const { pfn, pages } of this.#index.remove(start, end)) {
      await this.technology.reclaim?.(pfn, pages);
      if (this.kernel.schedule !== null) await this.kernel.schedule('gmem-reclaimed');
      freePages(this.kernel, pfn, pages);
    }
  }

  /** What `truncate` does between invalidations: FALLOC_FL_PUNCH_HOLE. Attributes stay. */
  async punchHole(start: number, end: number): Promise<void> {
    await this.invalidateLock.write(() =>
      this.invalidating(start, end, this.mappingKind, 'punch-hole', () => this.truncate(start, end)),
    );
  }

  /**
   * Does `work` while no guest of any VM maps pages [start, end). Throws what a VM throws that cannot let go of a part of a
   * large page. Caller holds the invalidate lock.
   */
  async invalidating(
    start: number,
    end: number,
    what: InvalidationKind,
    why: InvalidationReason,
    work: () => void | Promise<void>,
  ): Promise<void> {
    const ranges = [...this.files].flatMap((file) => file.guestRanges(start, end));
    let begun = 0;
    try {
      for (const { user, slot, startGfn, endGfn } of ranges) {
        begun++;
        await user.invalidateStart(slot, startGfn, endGfn, what, why);
      }
      if (this.kernel.schedule !== null) await this.kernel.schedule('gmem-invalidate');
      await work();
    } finally {
      for (const { user, slot, startGfn, endGfn } of ranges.slice(0, begun)) {
        user.invalidateEnd(slot, startGfn, endGfn);
      }
    }
  }

  /** Makes pages [start, end) private or shared and chunks that lie only partly in it single pages. */
  setPrivate(start: number, end: number, isPrivate: boolean): void {
    if (start % CHUNK_PAGES !== 0) this.#index.split(start);
    if (end % CHUNK_PAGES !== 0) this.#index.split(end);
    this.#converted.set(start, end, isPrivate === this.isInitShared ? true : undefined);
  }

  /** `page` for a user page table, which counts who refers to the page: the file has the first reference. */
  hostPage(index: number, localNode: number): number {
    const { pageRefs } = this.kernel;
    const pfn = this.page(index, localNode);
    if (pageRefs.count(pfn) === 0) pageRefs.adopt(pfn);
    return pfn;
  }

  /**
   * The memory of page frame `pfn` has failed: guests and user space lose their mappings and get EHWPOISON and SIGBUS when
   * they come again. The page stays in the file until a hole is punched, and is never used for anything else. False when
   * the frame is not the file's.
   */
  async memoryFailure(pfn: number): Promise<boolean> {
    return this.invalidateLock.read(async () => {
      const index = this.#index.indexOf(pfn);
      if (index === undefined) return false;
      this.kernel.pageRefs.poison(pfn);
      this.#index.split(index);
      await this.mapping.unmap(index, index + 1);
      await this.invalidating(index, index + 1, this.mappingKind, 'memory-failure', () => undefined);
      return true;
    });
  }

  /** Private memory does not move: EINVAL, always. */
  migrate(pfn: number): never {
    throw new KernelError(
      'EINVAL',
      'gmem-unmovable',
      `page frame ${pfn} belongs to a guest_memfd and cannot move`,
      {
        pfn,
      },
    );
  }

  /** The last file is closed: the memory goes. */
  async evict(): Promise<void> {
    await this.truncate(0, this.pages);
    this.life.advance('dead');
    this.kernel.openObjects.remove('guest_memfd-inode');
    this.kernel.memoryUsers.delete(this);
  }

  #isHugeHole(chunk: number, limit: number): boolean {
    const end = chunk + CHUNK_PAGES;
    return end <= limit && this.#index.isHole(chunk) && this.isUniform(chunk, end, this.isPrivate(chunk));
  }
}
