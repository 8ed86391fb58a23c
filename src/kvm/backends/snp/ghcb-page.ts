/** The page that a guest shares with the host for one VMGEXIT: what it asks, and where the answer goes. */
import { hex, PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { GHCB, GHCB_RESPONSE, type GhcbField, ghcbBitmap, isGhcbFieldValid } from '../../../abi/ghcb.ts';
import type { ValuesOf } from '../../../abi/struct.ts';
import type { PageRefs } from '../../../kernel/page-refs.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';

type Values = ValuesOf<typeof GHCB>;

/** @internal */
export class GhcbPage {
  readonly #lp: LogicalProcessor;
  readonly #refs: PageRefs;
  readonly #pfn: number;
  readonly #gpa: number;
  readonly #page: Uint8Array;
  readonly #values: Values;
  #written: GhcbField[] = [];
  /** The host holds a reference to the page until it has answered. */
  #isHeld: boolean;

  /** Takes in the page at page frame `pfn`, which the guest has at `gpa`. */
  constructor(lp: LogicalProcessor, refs: PageRefs, pfn: number, gpa: number) {
    this.#lp = lp;
    this.#refs = refs;
    this.#pfn = pfn;
    this.#gpa = gpa;
    this.#page = lp.load(pfn * PAGE_4K, PAGE_4K);
    this.#isHeld = refs.count(pfn) > 0;
    if (this.#isHeld) refs.get(pfn);
    this.#values = GHCB.decode(this.#page);
  }

  get usage(): number {
    return this.#values.usage;
  }

  /** A field that the guest has filled, or null. */
  get(field: GhcbField): bigint | null {
    return isGhcbFieldValid(this.#values.valid_bitmap, field) ? this.#values[field] : null;
  }

  has(...fields: readonly GhcbField[]): boolean {
    return fields.every((field) => this.get(field) !== null);
  }

  set(field: GhcbField, value: bigint): void {
    GHCB.patch(this.#page, { [field]: BigInt.asUintN(64, value) });
    this.#written.push(field);
  }

  /**
   * Bytes of the shared buffer that SW_SCRATCH points to, to be read and written; null when they do not lie in it.
   * Longer buffers elsewhere in guest memory are not supported.
   */
  scratch(lengthBytes: number): Uint8Array | null {
    const start = Number(this.get('sw_scratch') ?? 0n) - this.#gpa;
    const { shared_buffer: first, rsvd_ff0: end } = GHCB.offsets;
    if (start < first || start + lengthBytes > end) return null;
    return this.#page.subarray(start, start + lengthBytes);
  }

  /** Lets the page go, answered or not. */
  close(): void {
    if (this.#isHeld) this.#refs.put(this.#pfn);
    this.#isHeld = false;
  }

  /** Writes the answer back and lets the page go. Throws EFAULT when the page is not the host's any more. */
  respond(info1: bigint = GHCB_RESPONSE.NO_ACTION, info2 = 0n): void {
    this.set('sw_exit_info_1', info1);
    this.set('sw_exit_info_2', info2);
    GHCB.patch(this.#page, { valid_bitmap: ghcbBitmap(this.#written) });
    try {
      this.#lp.store(this.#pfn * PAGE_4K, this.#page);
    } catch {
      const text = `the GHCB at ${hex(this.#gpa)} cannot be written`;
      throw new KernelError('EFAULT', 'ghcb-not-shared', text, { gpa: this.#gpa });
    } finally {
      this.close();
    }
  }
}
