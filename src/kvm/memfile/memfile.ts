/**
 * A memfd of MFD_INACCESSIBLE, private memory as the series of 2022 had it: user space gives pages to the guest by
 * fallocate and takes them back by punching holes; whether a page is there is whether it is private. The file knows
 * nothing of KVM, which registers to hear of both.
 */
import { hex, PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { FALLOC_FL, MFD } from '../../abi/system-call-flags.ts';
import type { HostKernel } from '../../kernel/host-kernel.ts';
import type { FileObject } from '../../kernel/process/file-object.ts';
import { ReadWriteLock } from '../../kernel/process/lock.ts';
import type { FileStat } from '../../kernel/process/system-calls.ts';
import type { Task } from '../../kernel/process/task.ts';
import { allocatePages, freePages } from '../file-memory.ts';
import { PageIndex, type PageRun } from '../guest-memfd/page-index.ts';

const PAGE = BigInt(PAGE_4K);

/** struct memfile_notifier: who uses the pages. Pages [start, end) come or go between the two calls. @public */
export interface MemfileNotifier {
  begin(start: number, end: number, why: 'populate' | 'invalidate'): Promise<void>;
  end(start: number, end: number): void;
}

/** @public */
export class Memfile implements FileObject {
  readonly kind = 'memfile';
  readonly name: string;
  readonly inode: number;
  readonly notifiers = new Set<MemfileNotifier>();
  readonly #kernel: HostKernel;
  readonly #index = new PageIndex();
  /** Held for reading by who looks pages up, for writing while pages come and go. */
  readonly #lock = new ReadWriteLock();
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
      blocks: (this.#index.pages * PAGE_4K) / 512,
      links: 0,
    };
  }

  /** The size can be given once: EPERM after that, EINVAL where it is not whole pages. */
  async truncate(sizeBytes: bigint): Promise<void> {
    if (this.#sizeBytes !== 0n) throw inaccessible('the size of the memory cannot change');
    if (sizeBytes % PAGE !== 0n) {
      throw new KernelError('EINVAL', 'memfile-size', 'the size must be a multiple of 4 KiB', { sizeBytes });
    }
    this.#sizeBytes = sizeBytes;
  }

  mmap(): never {
    throw inaccessible('the memory cannot be mapped');
  }

  async read(): Promise<never> {
    throw inaccessible('the memory cannot be read');
  }

  async write(): Promise<never> {
    throw inaccessible('the memory cannot be written');
  }

  /**
   * Makes pages private, or with PUNCH_HOLE shared. Throws EOPNOTSUPP for other modes, EINVAL for holes that are not whole
   * pages, EINTR and ENOSPC with nothing made.
   */
  async fallocate(mode: number, offset: bigint, length: bigint, task: Task): Promise<void> {
    const operation = mode & ~FALLOC_FL.KEEP_SIZE;
    if (operation !== 0 && operation !== FALLOC_FL.PUNCH_HOLE) {
      throw new KernelError('EOPNOTSUPP', 'memfile-mode', `a memfd knows no fallocate of mode ${hex(mode)}`, {
        mode,
      });
    }
    const isHole = operation === FALLOC_FL.PUNCH_HOLE;
    if (isHole && (offset % PAGE !== 0n || length % PAGE !== 0n)) {
      throw new KernelError('EINVAL', 'memfile-unaligned', 'a hole must be whole pages', { offset, length });
    }
    const start = Number(offset / PAGE);
    const end = Number((offset + length + PAGE - 1n) / PAGE);
    await this.#changing(start, end, isHole ? 'invalidate' : 'populate', async () => {
      if (isHole) this.#free(start, end);
      else await this.#allocate(start, end, task);
    });
    if (mode === 0 && offset + length > this.#sizeBytes) this.#sizeBytes = offset + length;
  }

  /** True when page `index` is there. */
  has(index: number): boolean {
    return this.#index.get(index) !== undefined;
  }

  /** Pages of [start, end) that are there, ascending. */
  runs(start: number, end: number): readonly PageRun[] {
    return this.#index.runs(start, end);
  }

  /** memfile_get_pfn: `use` gets the page frame of page `index`, undefined for none, which stays until it is done. */
  async withPage<T>(index: number, use: (pfn: number | undefined) => Promise<T>): Promise<T> {
    return this.#lock.read(() => use(this.#index.get(index)));
  }

  async release(): Promise<void> {
    this.#free(0, Number.MAX_SAFE_INTEGER);
  }

  async #changing(
    start: number,
    end: number,
    why: 'populate' | 'invalidate',
    work: () => void | Promise<void>,
  ): Promise<void> {
    await this.#lock.write(async () => {
      const told = [...this.notifiers];
      for (const notifier of told) await notifier.begin(start, end, why);
      try {
        await this.#kernel.schedule?.('memfile-change');
        await work();
      } finally {
        for (const notifier of told) notifier.end(start, end);
      }
    });
  }

  async #allocate(start: number, end: number, task: Task): Promise<void> {
    const made: number[] = [];
    try {
      for (let index = start; index < end; index++) {
        task.checkSignal();
        if (this.has(index)) continue;
        this.#index.add(index, this.#newPage(index, task));
        made.push(index);
        await this.#kernel.schedule?.('memfile-allocate');
      }
    } catch (error) {
      for (const index of made) this.#free(index, index + 1);
      throw error;
    }
  }

  #newPage(index: number, task: Task): number {
    const pfn = allocatePages({
      kernel: this.#kernel,
      policy: null,
      index,
      localNode: task.lp.node,
      order: 0,
      // Any VM may come to use the file, a TD among them.
      forTd: true,
      purpose: 'memfile',
    });
    if (typeof pfn === 'number') return pfn;
    throw new KernelError(
      'ENOSPC',
      'memfile-no-memory',
      `there is no memory for page ${index}: ${pfn.text}`,
      {
        index,
      },
    );
  }

  #free(start: number, end: number): void {
    for (const { pfn, pages } of this.#index.remove(start, end)) freePages(this.#kernel, pfn, pages);
  }
}

/** What memfd_create with MFD_INACCESSIBLE makes: EINVAL together with ALLOW_SEALING. @public */
export function createMemfile(kernel: HostKernel, name: string, flags: number): Memfile {
  if ((flags & MFD.ALLOW_SEALING) !== 0) {
    throw new KernelError('EINVAL', 'memfile-sealing', 'an inaccessible memfd has no seals', { flags });
  }
  return new Memfile(kernel, name);
}

function inaccessible(text: string): KernelError {
  return new KernelError('EPERM', 'memfile-inaccessible', `${text}: it was made with MFD_INACCESSIBLE`);
}
