/** The memory of a process: areas, page tables, faults. */
import { alignUp, PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import type { HostKernel } from '../host-kernel.ts';
import { AreaList } from './area-list.ts';
import type { MemoryArea } from './memory-area.ts';
import { allocPolicyPage } from './mempolicy.ts';
import type { OpenFile } from './open-file.ts';
import { PageTable } from './page-table.ts';
import { UserFault } from './system-calls.ts';
import type { Task } from './task.ts';

/** End of user addresses with four-level paging: the last page below 2^47 stays free. @public */
export const USER_END = 2 ** 47 - PAGE_4K;

/**
 * Whoever maps user memory besides the process, such as KVM for what a guest shares. From `invalidateStart` to
 * `invalidateEnd` it maps nothing of [start, end).
 * @public
 */
export interface MmuNotifier {
  invalidateStart(start: number, end: number): Promise<void> | void;
  invalidateEnd(start: number, end: number): void;
  /** The process is gone, and all its memory goes. */
  release?(): Promise<void> | void;
}

/** @public */
export class AddressSpace {
  readonly kernel: HostKernel;
  readonly notifiers = new Set<MmuNotifier>();
  readonly areas = new AreaList();
  readonly #table: PageTable;
  /** Grows whenever pages are taken away: a fault that slept meanwhile starts over. */
  #zaps = 0;

  constructor(kernel: HostKernel) {
    this.kernel = kernel;
    this.#table = new PageTable(kernel.pageRefs);
  }

  /** Pages that are mapped. */
  get mappedPages(): number {
    return this.#table.size;
  }

  /** Everything that is mapped: virtual page and page frame. */
  entries(): Iterable<{ readonly vpn: number; readonly pfn: number }> {
    return this.#table.entries();
  }

  /** Page frame that a virtual page maps, or null. */
  pfnAt(vpn: number): number | null {
    const pfn = this.#table.lookup(vpn, false);
    return pfn < 0 ? null : pfn;
  }

  /** Page frame of a virtual page that is mapped for such an access, or -1: what the hardware finds without a fault. */
  lookup(vpn: number, write: boolean): number {
    return this.#table.lookup(vpn, write);
  }

  /** Page frame of a virtual page, faulted in where needed. Throws UserFault. */
  async faultIn(vpn: number, write: boolean, task: Task): Promise<number> {
    for (;;) {
      const pfn = this.#table.lookup(vpn, write);
      if (pfn >= 0) return pfn;
      await this.#fault(vpn, write, task);
    }
  }

  /** Adds an area over free addresses. The area's file reference goes with it. */
  add(area: MemoryArea): void {
    this.areas.insert(area);
    area.mapping?.add(area);
  }

  /** Unmaps [start, end), multiples of 4 KiB; areas that reach beyond keep the rest. */
  async unmap(start: number, end: number): Promise<void> {
    const files: OpenFile[] = [];
    await this.#invalidate(start, end, () => {
      this.split(start);
      this.split(end);
      for (const area of this.areas.within(start, end)) {
        this.areas.delete(area);
        area.mapping?.remove(area);
        if (area.file !== null) files.push(area.file);
      }
      this.#clear(start, end, 'everything');
    });
    for (const file of files) await file.put();
  }

  /** Makes `address` a border of areas. */
  split(address: number): void {
    const area = this.areas.at(address);
    if (area === undefined || area.start === address) return;
    const upper = area.part(address, area.end);
    upper.file?.get();
    area.end = address;
    this.add(upper);
  }

  /**
   * Takes pages in [start, end) out of the page tables, whoever else maps them first; accesses fault again. 'file-pages'
   * leaves private copies.
   */
  zap(start: number, end: number, what: 'everything' | 'file-pages'): Promise<void> {
    return this.#invalidate(start, end, () => this.#clear(start, end, what));
  }

  /** What fork gives the child: shared mappings, and private pages that are copied when either writes to them. */
  fork(child: AddressSpace): Promise<void> {
    // At once, so that no other thread changes the areas in between.
    return this.#invalidate(0, USER_END, () => {
      for (const area of this.areas.all) {
        if (area.dontFork) continue;
        const copy = area.part(area.start, area.end, child);
        copy.file?.get();
        child.add(copy);
        // Shared pages fault in again; private ones that were written to exist nowhere else.
        if (!area.shared) this.#shareWith(child, area);
      }
    });
  }

  /** Ends the address space: whoever else maps it is told, and everything is unmapped. */
  async release(): Promise<void> {
    for (const notifier of [...this.notifiers]) await notifier.release?.();
    await this.unmap(0, USER_END);
  }

  /** Free addresses for `lengthBytes`, as high as there are. Throws ENOMEM. */
  findFree(lengthBytes: number): number {
    const start = this.areas.gapBelow(alignUp(lengthBytes, PAGE_4K), USER_END);
    if (start !== null) return start;
    throw new KernelError('ENOMEM', 'no-addresses', 'no free range of addresses is that long', {
      lengthBytes,
    });
  }

  #shareWith(child: AddressSpace, area: MemoryArea): void {
    const { pageRefs } = this.kernel;
    for (const vpn of this.#table.within(area.start / PAGE_4K, area.end / PAGE_4K)) {
      const pfn = this.#table.lookup(vpn, false);
      if (!this.#table.isPrivate(vpn)) continue;
      // A device that writes through a pin must go on writing to the parent's page.
      if (pageRefs.pins(pfn) > 0) child.#table.set(vpn, this.#copy(pfn, area, vpn), area.writable, true);
      else {
        this.#table.protect(vpn, false);
        pageRefs.get(pfn);
        child.#table.set(vpn, pfn, false, true);
      }
    }
  }

  /** Changes what [start, end) maps while nobody else maps it. */
  async #invalidate(start: number, end: number, change: () => void): Promise<void> {
    const told = new Set<MmuNotifier>();
    const nextUntold = (): MmuNotifier | undefined => [...this.notifiers].find((each) => !told.has(each));
    // One that comes while others take their time is told as well.
    for (let notifier = nextUntold(); notifier !== undefined; notifier = nextUntold()) {
      told.add(notifier);
      await notifier.invalidateStart(start, end);
    }
    if (told.size > 0 && this.kernel.schedule !== null) await this.kernel.schedule('mmu-notified');
    try {
      change();
    } finally {
      for (const notifier of told) notifier.invalidateEnd(start, end);
    }
  }

  #clear(start: number, end: number, what: 'everything' | 'file-pages'): void {
    this.#zaps++;
    for (const vpn of this.#table.within(start / PAGE_4K, end / PAGE_4K)) {
      if (what === 'everything' || !this.#table.isPrivate(vpn)) this.#table.clear(vpn);
    }
  }

  async #fault(vpn: number, write: boolean, task: Task): Promise<void> {
    const address = vpn * PAGE_4K;
    const area = this.areas.at(address);
    if (area === undefined) throw new UserFault('SIGSEGV', address, 'nothing is mapped there');
    if (write ? !area.writable : !area.readable) {
      throw new UserFault('SIGSEGV', address, `the mapping does not allow to ${write ? 'write' : 'read'}`);
    }
    if (write && !area.shared && this.#table.lookup(vpn, false) >= 0) return this.#writePrivate(vpn, area);
    const { ops } = area;
    if (ops === null) {
      const pfn = this.#allocate(area, vpn, task.lp.node);
      this.#table.set(vpn, pfn, area.writable, true);
      return;
    }
    const zaps = this.#zaps;
    const answer = ops.fault(area, area.indexOf(vpn), write && area.shared, task);
    const fault = answer instanceof Promise ? await answer : answer;
    if (fault === 'retry') {
      await this.kernel.schedule?.('page-fault');
      return;
    }
    if ('signal' in fault) throw new UserFault(fault.signal, address, fault.reason);
    if (zaps !== this.#zaps || this.#table.lookup(vpn, write) >= 0) return;
    if (this.kernel.pageRefs.isPoisoned(fault.pfn)) {
      throw new UserFault('SIGBUS', address, 'the memory of the page has failed');
    }
    this.kernel.pageRefs.get(fault.pfn);
    this.#table.set(vpn, fault.pfn, area.shared && area.writable && fault.readOnly !== true, false);
    if (write && fault.readOnly === true && area.shared) {
      throw new UserFault('SIGSEGV', address, 'the file does not allow to write');
    }
  }

  /** A write to a page that is mapped and not writable: the process' own is written to when nobody else has it. */
  #writePrivate(vpn: number, area: MemoryArea): Promise<void> {
    const start = vpn * PAGE_4K;
    return this.#invalidate(start, start + PAGE_4K, () => {
      const pfn = this.#table.lookup(vpn, false);
      if (pfn < 0 || this.#table.isWritable(vpn)) return;
      if (this.#table.isPrivate(vpn) && this.kernel.pageRefs.count(pfn) === 1) this.#table.protect(vpn, true);
      else this.#table.set(vpn, this.#copy(pfn, area, vpn), true, true);
    });
  }

  #copy(pfn: number, area: MemoryArea, vpn: number): number {
    const { lp } = this.kernel.cpus[0]!;
    const copy = this.#allocate(area, vpn, lp.node);
    lp.store(copy * PAGE_4K, lp.load(pfn * PAGE_4K, PAGE_4K));
    return copy;
  }

  #allocate(area: MemoryArea, vpn: number, localNode: number): number {
    const pfn = allocPolicyPage(this.kernel.pageRefs, {
      policy: area.policy,
      index: vpn,
      localNode,
      purpose: 'user memory',
    });
    if (pfn !== null) return pfn;
    throw new UserFault('SIGBUS', vpn * PAGE_4K, 'no memory is left');
  }
}
