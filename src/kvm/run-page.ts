/** struct kvm_run: pages of the host that user space maps and the kernel reads and writes. */
import { PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { KVM_RUN_COMMON, KVM_RUN_EXIT_BYTES, KVM_RUN_EXIT_OFFSET } from '../abi/kvm/exits.ts';
import type { HostKernel } from '../kernel/host-kernel.ts';
import type { LogicalProcessor } from '../machine/lp.ts';

/** Pages that mmap of a vCPU offers: kvm_run, and the data of port accesses. @public */
export const RUN_PAGES = 2;
/** Offset of port data in the mapping, as an exit reports it. @public */
export const PIO_OFFSET = PAGE_4K;

const { exit_reason: EXIT_REASON, flags: FLAGS, immediate_exit: IMMEDIATE_EXIT } = KVM_RUN_COMMON.offsets;

/** @public */
export class RunPage {
  /** Page frames of the mapping, in order. */
  readonly pfns: readonly number[];
  readonly #kernel: HostKernel;

  private constructor(kernel: HostKernel, pfns: readonly number[]) {
    this.#kernel = kernel;
    this.pfns = pfns;
  }

  /** Throws ENOMEM. */
  static allocate(kernel: HostKernel, node: number): RunPage {
    const pfns: number[] = [];
    while (pfns.length < RUN_PAGES) {
      const pfn = kernel.pageRefs.alloc({ node, purpose: 'kvm_run' });
      if (pfn === null) {
        for (const taken of pfns) kernel.pageRefs.put(taken);
        throw new KernelError('ENOMEM', 'no-memory', 'no memory is left for the run page of a vCPU');
      }
      pfns.push(pfn);
    }
    return new RunPage(kernel, pfns);
  }

  isImmediateExit(lp: LogicalProcessor): boolean {
    return this.#read(lp, IMMEDIATE_EXIT, 1)[0] !== 0;
  }

  /** Reports an exit: its reason, and the union's bytes followed by zeroes. */
  report(lp: LogicalProcessor, reason: number, union?: Uint8Array): void {
    const head = new Uint8Array(4);
    new DataView(head.buffer).setUint32(0, reason, true);
    this.#write(lp, EXIT_REASON, head);
    this.#write(lp, FLAGS, new Uint8Array(2));
    if (union === undefined) return;
    const bytes = new Uint8Array(KVM_RUN_EXIT_BYTES);
    bytes.set(union);
    this.#write(lp, KVM_RUN_EXIT_OFFSET, bytes);
  }

  /** The union as user space left it. */
  union(lp: LogicalProcessor): Uint8Array {
    return this.#read(lp, KVM_RUN_EXIT_OFFSET, KVM_RUN_EXIT_BYTES);
  }

  /** Data of a port access. */
  pioData(lp: LogicalProcessor, length: number): Uint8Array {
    return this.#read(lp, PIO_OFFSET, length);
  }

  setPioData(lp: LogicalProcessor, bytes: Uint8Array): void {
    this.#write(lp, PIO_OFFSET, bytes);
  }

  free(): void {
    for (const pfn of this.pfns) this.#kernel.pageRefs.put(pfn);
  }

  #read(lp: LogicalProcessor, offset: number, length: number): Uint8Array {
    return lp.load(this.#address(offset), length);
  }

  #write(lp: LogicalProcessor, offset: number, bytes: Uint8Array): void {
    lp.store(this.#address(offset), bytes);
  }

  /** Nothing that is read or written crosses a page. */
  #address(offset: number): number {
    return this.pfns[Math.floor(offset / PAGE_4K)]! * PAGE_4K + (offset % PAGE_4K);
  }
}
