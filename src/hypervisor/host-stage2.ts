/**
 * The host's second stage of translation: an identity map made on demand, in the largest blocks that hold nothing but
 * pages the host may use. A page taken from the host splits its block, whose rest is mapped again when it is used.
 */
import { index1g, index2m, index4k, PAGE_1G, PAGE_2M, PAGE_4K } from '../abi/address.ts';

const BLOCK = 'block';
/** Entry per page: 1 mapped. */
type PageEntries = Uint8Array;
type RegionEntries = (typeof BLOCK | PageEntries | undefined)[];

/** What the map may hold. @internal */
export interface HostAccessRules {
  /** True when the host may use the page at `address`, be it memory or device. */
  mayMap(address: number): boolean;
  /** True when the host may use every page of the block and all of them alike. */
  mayMapBlock(address: number, sizeBytes: number): boolean;
}

/** @public */
export class HostStage2 {
  readonly #rules: HostAccessRules;
  readonly #regions = new Map<number, typeof BLOCK | RegionEntries>();
  /** Faults that made a mapping. */
  faults = 0;

  constructor(rules: HostAccessRules) {
    this.#rules = rules;
  }

  isMapped(address: number): boolean {
    const region = this.#regions.get(index1g(address));
    if (region === undefined || region === BLOCK) return region === BLOCK;
    const entry = region[index2m(address)];
    return entry === BLOCK || (entry !== undefined && entry[index4k(address)] === 1);
  }

  /** The host touched an address that is not mapped: maps it, or returns false when it is not the host's. */
  fault(address: number): boolean {
    if (!this.#rules.mayMap(address)) return false;
    this.faults++;
    const region = this.#regions.get(index1g(address));
    if (region === undefined && this.#rules.mayMapBlock(address, PAGE_1G)) {
      this.#regions.set(index1g(address), BLOCK);
      return true;
    }
    const entries = this.#split1g(address);
    if (entries[index2m(address)] === undefined && this.#rules.mayMapBlock(address, PAGE_2M)) {
      entries[index2m(address)] = BLOCK;
      return true;
    }
    this.#split2m(address)[index4k(address)] = 1;
    return true;
  }

  /** Maps pages that came back to the host. */
  map(pfn: number, pages: number): void {
    for (let i = 0; i < pages; i++) this.#split2m((pfn + i) * PAGE_4K)[index4k((pfn + i) * PAGE_4K)] = 1;
  }

  /** Takes pages out of the map; blocks that held them go with them. */
  unmap(pfn: number, pages: number): void {
    for (let i = 0; i < pages; i++) {
      const address = (pfn + i) * PAGE_4K;
      this.#split2m(address)[index4k(address)] = 0;
    }
  }

  /** What is mapped how, and how many tables below the root that takes. */
  figures(): { blocks1g: number; blocks2m: number; pages: number; tables: number } {
    const figures = { blocks1g: 0, blocks2m: 0, pages: 0, tables: 0 };
    for (const region of this.#regions.values()) {
      if (region === BLOCK) {
        figures.blocks1g++;
        continue;
      }
      figures.tables++;
      for (const entry of region) {
        if (entry === BLOCK) figures.blocks2m++;
        if (entry === undefined || entry === BLOCK) continue;
        figures.tables++;
        for (const mapped of entry) figures.pages += mapped;
      }
    }
    return figures;
  }

  #split1g(address: number): RegionEntries {
    const region = this.#regions.get(index1g(address));
    if (region !== undefined && region !== BLOCK) return region;
    const entries: RegionEntries = new Array(512).fill(undefined);
    this.#regions.set(index1g(address), entries);
    return entries;
  }

  #split2m(address: number): PageEntries {
    const region = this.#split1g(address);
    const entry = region[index2m(address)];
    if (entry !== undefined && entry !== BLOCK) return entry;
    const pages = new Uint8Array(512);
    region[index2m(address)] = pages;
    return pages;
  }
}
