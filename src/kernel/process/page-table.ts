/** Host page tables of one address space: virtual page to physical page. Every entry holds a reference to its page. */
import type { PageRefs } from '../page-refs.ts';

const WRITABLE = 1;
/** A private page of the process rather than one of a file. */
const PRIVATE = 2;
const FLAGS = 4;

/** @internal */
export class PageTable {
  readonly #refs: PageRefs;
  /** Page frame times 4, plus flags. */
  readonly #entries = new Map<number, number>();

  constructor(refs: PageRefs) {
    this.#refs = refs;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Page frame of a virtual page that may be accessed so, or -1. */
  lookup(vpn: number, write: boolean): number {
    const entry = this.#entries.get(vpn);
    if (entry === undefined || (write && (entry & WRITABLE) === 0)) return -1;
    return Math.floor(entry / FLAGS);
  }

  isWritable(vpn: number): boolean {
    return ((this.#entries.get(vpn) ?? 0) & WRITABLE) !== 0;
  }

  isPrivate(vpn: number): boolean {
    return ((this.#entries.get(vpn) ?? 0) & PRIVATE) !== 0;
  }

  /** Maps a page. The entry takes over the caller's reference, and gives up that of the page before. */
  set(vpn: number, pfn: number, writable: boolean, isPrivate: boolean): void {
    this.clear(vpn);
    this.#entries.set(vpn, pfn * FLAGS + (isPrivate ? PRIVATE : 0) + (writable ? WRITABLE : 0));
  }

  /** Changes whether the page may be written. */
  protect(vpn: number, writable: boolean): void {
    const entry = this.#entries.get(vpn)!;
    this.#entries.set(vpn, entry - (entry & WRITABLE) + (writable ? WRITABLE : 0));
  }

  clear(vpn: number): void {
    const entry = this.#entries.get(vpn);
    if (entry === undefined) return;
    this.#entries.delete(vpn);
    this.#refs.put(Math.floor(entry / FLAGS));
  }

  /** Everything that is mapped: virtual page and page frame. */
  *entries(): Generator<{ readonly vpn: number; readonly pfn: number }> {
    for (const [vpn, entry] of this.#entries) yield { vpn, pfn: Math.floor(entry / FLAGS) };
  }

  /** Mapped virtual pages in [start, end), in no particular order; the table may change meanwhile. */
  within(start: number, end: number): readonly number[] {
    const found: number[] = [];
    if (end - start > this.#entries.size) {
      for (const vpn of this.#entries.keys()) if (vpn >= start && vpn < end) found.push(vpn);
    } else {
      for (let vpn = start; vpn < end; vpn++) if (this.#entries.has(vpn)) found.push(vpn);
    }
    return found;
  }
}
