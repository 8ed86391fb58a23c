/** The shared half of guest memory: pages of the process, mapped for as long as the process maps them. */
import { PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import type { MmuNotifier } from '../kernel/process/address-space.ts';
import { UserFault } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import type { Memslot } from './memslots.ts';
import type { Vm } from './vm.ts';

/** A page of the process for the guest. @public */
export interface HostPage {
  readonly pfn: number;
  readonly writable: boolean;
}

/** @public */
export class HostMemory implements MmuNotifier {
  readonly #vm: Vm;
  readonly #begun: {
    readonly start: number;
    readonly end: number;
    readonly ranges: readonly { readonly startGfn: number; readonly endGfn: number }[];
  }[] = [];
  readonly #waiting: (() => void)[] = [];

  constructor(vm: Vm) {
    this.#vm = vm;
  }

  /** The page that user space has at `gfn` of the slot, faulted in. Throws EFAULT where it has none. */
  async page(slot: Memslot, gfn: number, write: boolean, task: Task): Promise<HostPage> {
    const { memory } = this.#vm.process;
    const vpn = slot.userspaceAddress / PAGE_4K + (gfn - slot.baseGfn);
    try {
      const pfn = await memory.faultIn(vpn, write, task);
      return { pfn, writable: write || memory.lookup(vpn, true) >= 0 };
    } catch (error) {
      if (!(error instanceof UserFault)) throw error;
      const { signal, reason } = error;
      const text = `user space has no page at 0x${(vpn * PAGE_4K).toString(16)} of slot ${slot.id}: ${reason}`;
      throw new KernelError('EFAULT', 'host-page-missing', text, { slot: slot.id, gfn, signal });
    }
  }

  /** User pages in [start, end) go: the guest loses them first. */
  async invalidateStart(start: number, end: number): Promise<void> {
    const vm = this.#vm;
    const ranges = this.#guestRanges(start, end);
    this.#begun.push({ start, end, ranges });
    for (const { startGfn, endGfn } of ranges) vm.invalidations.begin(startGfn, endGfn);
    if (ranges.length === 0) return;
    await vm.mmuLock.run(async () => {
      for (const { startGfn, endGfn } of ranges) await vm.backend.zap(startGfn, endGfn, 'shared');
    });
  }

  invalidateEnd(start: number, end: number): void {
    const begun = this.#begun.find((candidate) => candidate.start === start && candidate.end === end);
    if (begun === undefined) throw new Error('the end of an invalidation that had not begun');
    this.#begun.splice(this.#begun.indexOf(begun), 1);
    for (const { startGfn, endGfn } of begun.ranges) this.#vm.invalidations.end(startGfn, endGfn);
    if (this.#begun.length === 0) for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Resolves when no user pages are going. A slot that came meanwhile would not be told that its pages go. */
  async settled(): Promise<void> {
    while (this.#begun.length > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #guestRanges(start: number, end: number): { startGfn: number; endGfn: number }[] {
    const ranges = [];
    for (const { baseGfn, pages, userspaceAddress } of this.#vm.slots) {
      const from = Math.max(start - userspaceAddress, 0) / PAGE_4K;
      const to = Math.min((end - userspaceAddress) / PAGE_4K, pages);
      if (from < to) ranges.push({ startGfn: baseGfn + from, endGfn: baseGfn + to });
    }
    return ranges;
  }
}
