/** Reference and pin counts of pages that user space, files or devices share. */
import { PAGE_4K } from '../abi/address.ts';
import type { Machine } from '../machine/machine.ts';
import type { AllocOptions } from './allocation.ts';
import type { PageAllocator } from './allocator.ts';

/**
 * A page has one reference when it is allocated; page tables, files and pins take one each. It goes back to the allocator
 * with the last one. Pages that were allocated past this class have no count.
 * @public
 */
export class PageRefs {
  readonly #machine: Machine;
  readonly #allocator: PageAllocator;
  readonly #counts = new Map<number, number>();
  readonly #pins = new Map<number, number>();

  constructor(machine: Machine, allocator: PageAllocator) {
    this.#machine = machine;
    this.#allocator = allocator;
  }

  /** A zeroed page with one reference, or null when there is no memory. No such page goes to a TD. */
  alloc(options: AllocOptions): number | null {
    const pfn = this.#allocator.allocPages(0, { ...options, nonTdxOk: true });
    if (pfn === null) return null;
    this.#machine.lps[0]!.movdir64bZero(pfn * PAGE_4K, (pfn + 1) * PAGE_4K);
    this.#counts.set(pfn, 1);
    return pfn;
  }

  /** Counts one reference, the caller's, to a page that was allocated past this class. */
  adopt(pfn: number): void {
    if (this.#counts.has(pfn)) throw new Error(`page ${pfn} is counted already`);
    this.#counts.set(pfn, 1);
  }

  /** Pages that are counted. */
  get size(): number {
    return this.#counts.size;
  }

  /** References, those of pins included; 0 for a page that is not counted. */
  count(pfn: number): number {
    return this.#counts.get(pfn) ?? 0;
  }

  get(pfn: number): void {
    const count = this.#counts.get(pfn);
    if (count === undefined) throw new Error(`page ${pfn} is referenced and not counted`);
    this.#counts.set(pfn, count + 1);
  }

  /** One reference less; with the last one the page is free. */
  put(pfn: number): void {
    const count = this.#counts.get(pfn);
    if (count === undefined) throw new Error(`page ${pfn} is put and not counted`);
    if (count > 1) {
      this.#counts.set(pfn, count - 1);
      return;
    }
    this.#counts.delete(pfn);
    this.#allocator.freePages(pfn, 1);
  }

  /** A reference for a device. */
  pin(pfn: number): void {
    this.get(pfn);
    this.#pins.set(pfn, this.pins(pfn) + 1);
  }

  unpin(pfn: number): void {
    const left = this.pins(pfn) - 1;
    if (left < 0) throw new Error(`page ${pfn} is not pinned`);
    if (left === 0) this.#pins.delete(pfn);
    else this.#pins.set(pfn, left);
    this.put(pfn);
  }

  pins(pfn: number): number {
    return this.#pins.get(pfn) ?? 0;
  }

  /** Marks a page whose memory has failed: it is never used again. */
  poison(pfn: number): void {
    this.#allocator.poison(pfn);
  }

  isPoisoned(pfn: number): boolean {
    return this.#allocator.isPoisoned(pfn);
  }
}
