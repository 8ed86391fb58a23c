/** struct kvm_run: pages of the host that user space maps and the kernel reads and writes. */
import { PAGE_4K } from '../abi/address.ts';
import type { LogicalProcessor } from '../machine/lp.ts';

/** Pages that mmap of a vCPU offers: kvm_run, and the data of port accesses. @public */
export const RUN_PAGES = 2;
/** Offset of port data in the mapping. */
const PIO_OFFSET = PAGE_4K;
/** Offset of the union of exits in kvm_run (UAPI). */
const UNION_OFFSET = 32;
const EXIT_REASON_OFFSET = 8;
const IMMEDIATE_EXIT_OFFSET = 1;

/** @public */
export class RunPage {
  /** Page frames of the mapping, in order. */
  readonly pfns: readonly number[];

  constructor(pfns: readonly number[]) {
    this.pfns = pfns;
  }

  isImmediateExit(lp: LogicalProcessor): boolean {
    return this.read(lp, IMMEDIATE_EXIT_OFFSET, 1)[0] !== 0;
  }

  /** Reports an exit: its reason and the union's bytes. */
  report(lp: LogicalProcessor, reason: number, union: Uint8Array): void {
    const head = new Uint8Array(4);
    new DataView(head.buffer).setUint32(0, reason, true);
    this.write(lp, EXIT_REASON_OFFSET, head);
    this.write(lp, UNION_OFFSET, union);
  }

  /** Bytes of the union from `offset` on. */
  union(lp: LogicalProcessor, offset: number, length: number): Uint8Array {
    return this.read(lp, UNION_OFFSET + offset, length);
  }

  /** Port data. */
  pioData(lp: LogicalProcessor, length: number): Uint8Array {
    return this.read(lp, PIO_OFFSET, length);
  }

  setPioData(lp: LogicalProcessor, bytes: Uint8Array): void {
    this.write(lp, PIO_OFFSET, bytes);
  }

  read(lp: LogicalProcessor, offset: number, length: number): Uint8Array {
    return lp.load(this.#address(offset), length);
  }

  write(lp: LogicalProcessor, offset: number, bytes: Uint8Array): void {
    lp.store(this.#address(offset), bytes);
  }

  /** Nothing that is read or written crosses a page. */
  #address(offset: number): number {
    return this.pfns[Math.floor(offset / PAGE_4K)]! * PAGE_4K + (offset % PAGE_4K);
  }
}
