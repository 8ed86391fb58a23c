/** Pages that KVM lends to the TDX module, and how they come back (Linux host rules 2.4, 2.7, 1.13). */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { TDH } from '../../../abi/leaves.ts';
import { formatStatus } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { Cpu } from '../../../kernel/cpu.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import type { PamtPages } from '../../../kernel/pamt-pages.ts';
import { KVM_PREFIX, tdCall } from './td-call.ts';

/** A page that the host will not use again before it boots. @public */
export interface LeakedPage {
  readonly address: number;
  /** 4 KiB pages. */
  readonly pages: number;
  /** What it was: 'TDR', 'TDCX', 'TDVPR', 'secure EPT', 'guest'. */
  readonly kind: string;
  /** What went wrong. */
  readonly why: string;
}

/** Addresses are of 4 KiB pages. @internal */
export class ModulePages {
  readonly leaked: LeakedPage[] = [];
  /** Pairs for the pages' metadata; null where PAMT is static. */
  readonly pamt: PamtPages | null;
  readonly #kernel: HostKernel;
  readonly #resets: boolean;

  constructor(kernel: HostKernel, pamt: PamtPages | null) {
    this.#kernel = kernel;
    this.pamt = pamt;
    this.#resets = kernel.detection?.errata.partialWriteMce ?? false;
  }

  /** A page of the kernel. Throws ENOMEM. */
  alloc(kind: string): number {
    const pfn = this.#kernel.allocator.allocPages(0, { purpose: `kvm: ${kind}` });
    if (pfn !== null) return pfn * PAGE_4K;
    throw new KernelError('ENOMEM', 'no-page', `no page is free for a TD (${kind})`, { kind });
  }

  free(page: number): void {
    this.#kernel.allocator.freePages(page / PAGE_4K, 1);
  }

  /** Before the module gets `page`: its metadata has a place, and no dirty line will land on it later. */
  lend(cpu: Cpu, page: number): void {
    this.pamt?.get(cpu, page);
    cpu.lp.clflushPage(page);
  }

  /** A page ready for the module, as the policy of TD memory says. Throws ENOMEM with its reason, EIO. */
  allocLent(cpu: Cpu, kind: string): number {
    const { tdMemory } = this.#kernel;
    const page = tdMemory.alloc(0, { purpose: `kvm: ${kind}`, node: cpu.lp.node }) * PAGE_4K;
    try {
      this.lend(cpu, page);
      return page;
    } catch (error) {
      this.free(page);
      throw error;
    }
  }

  /** Frees a page of `allocLent` that the module does not have. */
  freeLent(cpu: Cpu, page: number): void {
    this.returned(cpu, page);
    this.free(page);
  }

  /** The module does not have `page`: it refused it, or gave it back. */
  returned(cpu: Cpu, page: number): void {
    this.pamt?.put(cpu, page);
  }

  /** Makes memory that was private usable again: on machines with the partial-write erratum lines are written whole. */
  reset(cpu: Cpu, page: number, bytes = PAGE_4K): void {
    if (this.#resets) cpu.lp.movdir64bZero(page, page + bytes);
  }

  /**
   * TDH.PHYMEM.PAGE.RECLAIM of a page of `bytes`, once the TD's KeyID is free. False when it stays with the module, and is
   * leaked.
   */
  reclaim(cpu: Cpu, page: number, kind: string, bytes = PAGE_4K): boolean {
    const status = tdCall(cpu, TDH.phymemPageReclaim, page);
    if (status === STATUS.TDX_SUCCESS) return true;
    this.leak(page, kind, `TDH.PHYMEM.PAGE.RECLAIM failed with ${formatStatus(status)}`, bytes / PAGE_4K);
    return false;
  }

  /** Reclaims a page of `allocLent` and frees it. */
  reclaimAndFree(cpu: Cpu, page: number, kind: string): void {
    if (!this.reclaim(cpu, page, kind)) return;
    this.reset(cpu, page);
    this.freeLent(cpu, page);
  }

  /** Gives up `pages` pages from `page` on. A guest's pages keep a reference, so that their file does not free them. */
  leak(page: number, kind: string, why: string, pages = 1): void {
    const { pageRefs } = this.#kernel;
    for (let pfn = page / PAGE_4K; kind === 'guest' && pfn < page / PAGE_4K + pages; pfn++) {
      // Pages of a file are not counted before somebody else refers to them.
      if (pageRefs.count(pfn) === 0) pageRefs.adopt(pfn);
      pageRefs.get(pfn);
    }
    this.leaked.push({ address: page, pages, kind, why });
    this.#kernel.log.write(
      'err',
      KVM_PREFIX,
      `${kind} page 0x${page.toString(16)} is leaked: ${why}`,
      'page-leaked',
    );
  }
}
