/** The private pages of a TD as its host knows them: by GPA the memory behind them. Eight bytes a page. */
import { alignDown, index4k, PAGE_2M, PAGE_4K } from '../../abi/address.ts';

const PAGES_IN_2M = PAGE_2M / PAGE_4K;
/** No memory: a page frame number that no machine has. */
const NONE = -1;

/** GPAs are addresses of 4 KiB pages. @public */
export class PrivatePages {
  /** Page frame numbers, by start of the 2 MiB range. */
  readonly #ranges = new Map<number, Float64Array>();
  #size = 0;

  /** Pages the TD has. */
  get size(): number {
    return this.#size;
  }

  has(gpa: number): boolean {
    return this.get(gpa) !== undefined;
  }

  /** Address of the memory behind `gpa`, or undefined. */
  get(gpa: number): number | undefined {
    const pfn = this.#ranges.get(alignDown(gpa, PAGE_2M))?.[index4k(gpa)] ?? NONE;
    return pfn === NONE ? undefined : pfn * PAGE_4K;
  }

  /** Notes the memory behind a page that has none. */
  add(gpa: number, address: number): void {
    this.#range(gpa)[index4k(gpa)] = address / PAGE_4K;
    this.#size++;
  }

  /** Forgets a page that is there. */
  delete(gpa: number): void {
    this.#range(gpa)[index4k(gpa)] = NONE;
    this.#size--;
  }

  /** Addresses of the memory, in the order of 2 MiB ranges first used. */
  *values(): Generator<number, void> {
    for (const range of this.#ranges.values()) {
      for (const pfn of range) if (pfn !== NONE) yield pfn * PAGE_4K;
    }
  }

  #range(gpa: number): Float64Array {
    const start = alignDown(gpa, PAGE_2M);
    const known = this.#ranges.get(start);
    if (known !== undefined) return known;
    const range = new Float64Array(PAGES_IN_2M).fill(NONE);
    this.#ranges.set(start, range);
    return range;
  }
}
