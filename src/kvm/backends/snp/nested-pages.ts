/** Nested page tables of one guest: private and shared memory in the same table, by guest frame. */

import { PAGES_PER_2M } from '../../../machine/snp/rmp.ts';
import type { NestedMapping } from '../../../machine/snp/vmrun.ts';
import type { ZapKind } from '../../backend.ts';

interface Leaf {
  readonly pfn: number;
  readonly writable: boolean;
  readonly isPrivate: boolean;
}

/** @public */
export class NestedPages {
  readonly #small = new Map<number, Leaf>();
  /** By the first frame of each. */
  readonly #large = new Map<number, Leaf>();
  /** Frames that are no memory, with the generation of the slots that said so. */
  readonly #mmio = new Map<number, number>();

  /** Number of mappings. */
  get size(): number {
    return this.#small.size + this.#large.size;
  }

  /** What the hardware finds; `generation` is that of the slots now. */
  lookup(gfn: number, generation: number): NestedMapping {
    const small = this.#small.get(gfn);
    if (small !== undefined) return { pfn: small.pfn, isLarge: false, writable: small.writable };
    const offset = gfn % PAGES_PER_2M;
    const large = this.#large.get(gfn - offset);
    if (large !== undefined) return { pfn: large.pfn + offset, isLarge: true, writable: large.writable };
    return this.#mmio.get(gfn) === generation ? 'mmio' : null;
  }

  /** Every mapping: first frames and number of pages. */
  *leaves(): Generator<Leaf & { readonly gfn: number; readonly pages: number }> {
    for (const [gfn, leaf] of this.#small) yield { ...leaf, gfn, pages: 1 };
    for (const [gfn, leaf] of this.#large) yield { ...leaf, gfn, pages: PAGES_PER_2M };
  }

  isMapped(gfn: number, isPrivate: boolean): boolean {
    return this.#leaf(gfn)?.isPrivate === isPrivate;
  }

  map(gfn: number, isLarge: boolean, leaf: Leaf): void {
    this.zap(gfn, gfn + (isLarge ? PAGES_PER_2M : 1), 'both');
    (isLarge ? this.#large : this.#small).set(gfn, leaf);
  }

  mapMmio(gfn: number, generation: number): void {
    this.#mmio.set(gfn, generation);
  }

  /** Removes mappings of [start, end); large ones whole when any of them lies in it. */
  zap(start: number, end: number, what: ZapKind): void {
    remove(this.#small, start, end, 1, what);
    remove(this.#large, start - (start % PAGES_PER_2M), end, PAGES_PER_2M, what);
  }

  #leaf(gfn: number): Leaf | undefined {
    return this.#small.get(gfn) ?? this.#large.get(gfn - (gfn % PAGES_PER_2M));
  }
}

function remove(leaves: Map<number, Leaf>, start: number, end: number, step: number, what: ZapKind): void {
  const isMeant = ({ isPrivate }: Leaf): boolean => what === 'both' || isPrivate === (what === 'private');
  if ((end - start) / step > leaves.size) {
    for (const [gfn, leaf] of leaves) if (gfn >= start && gfn < end && isMeant(leaf)) leaves.delete(gfn);
    return;
  }
  for (let gfn = start; gfn < end; gfn += step) {
    const leaf = leaves.get(gfn);
    if (leaf !== undefined && isMeant(leaf)) leaves.delete(gfn);
  }
}
