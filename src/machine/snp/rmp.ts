/**
 * The reverse map table: for every 4 KiB page of memory who owns it (AMD APM volume 2, 15.36.3). A 2 MiB page is one
 * entry at the first of its 512 places, which then speaks for all of them. Only the hardware writes the table; what host,
 * guest and firmware may change of it is rmp-instructions.ts and firmware/page-states.ts.
 */
import { PAGE_4K } from '../../abi/address.ts';

/** Size of a page in the table, as its bit says it. @public */
export const RMP_4K = 0;
/** @public */
export const RMP_2M = 1;
/** @public */
export type RmpPageSize = typeof RMP_4K | typeof RMP_2M;

/** 4 KiB pages of a 2 MiB page. @public */
export const PAGES_PER_2M = 512;

/** Privilege levels of a guest; level 0 has all permissions always. @public */
export const VMPLS = 4;
/** Bits of a VMPL permission mask. @public */
export const VMPL = { read: 1, write: 2, executeUser: 4, executeSupervisor: 8, all: 15 } as const;

/** One entry. Addresses in bytes. @public */
export interface RmpEntry {
  /** The page belongs to a guest or to the firmware, not to the hypervisor. */
  readonly assigned: boolean;
  readonly pageSize: RmpPageSize;
  /** The hypervisor cannot change the entry. */
  readonly immutable: boolean;
  /** Guest physical address; 0 without one. */
  readonly gpa: number;
  /** Owner: a guest's ASID, 0 for the firmware and the hypervisor. */
  readonly asid: number;
  /** The page holds the state of a vCPU (or the context of a guest, with ASID 0). */
  readonly vmsa: boolean;
  /** The guest has accepted the page at this address. */
  readonly validated: boolean;
  /** Permission masks of VMPL 0 to 3. */
  readonly permissions: readonly number[];
}

/** Permissions of a page that a guest just got: all for VMPL 0, none for the others. @public */
export const VMPL0_ONLY: readonly number[] = [VMPL.all, 0, 0, 0];

/** An entry that nobody changed: the page is the hypervisor's. @public */
export const HYPERVISOR_PAGE: RmpEntry = {
  assigned: false,
  pageSize: RMP_4K,
  immutable: false,
  gpa: 0,
  asid: 0,
  vmsa: false,
  validated: false,
  permissions: [0, 0, 0, 0],
};

const ASSIGNED = 1;
const LARGE = 2;
const IMMUTABLE = 4;
const VMSA = 8;
const VALIDATED = 16;

/** Entries of a 2 MiB range that something in was ever assigned. */
interface RmpBlock {
  readonly flags: Uint8Array;
  readonly asids: Uint16Array;
  /** Guest page numbers. */
  readonly gfns: Float64Array;
  readonly permissions: Uint8Array;
  /** Entries that are not the hypervisor's plain pages. */
  used: number;
}

/** @public */
export class Rmp {
  /** Pages below this one have an entry. */
  readonly pages: number;
  readonly #blocks = new Map<number, RmpBlock>();

  constructor(pages: number) {
    this.pages = pages;
  }

  covers(pfn: number): boolean {
    return pfn < this.pages;
  }

  /** The entry in a page's place, which in a 2 MiB page says nothing beyond its first place. */
  at(pfn: number): RmpEntry {
    const block = this.#blocks.get(Math.floor(pfn / PAGES_PER_2M));
    if (block === undefined) return HYPERVISOR_PAGE;
    const i = pfn % PAGES_PER_2M;
    const flags = block.flags[i]!;
    return {
      assigned: (flags & ASSIGNED) !== 0,
      pageSize: (flags & LARGE) === 0 ? RMP_4K : RMP_2M,
      immutable: (flags & IMMUTABLE) !== 0,
      gpa: block.gfns[i]! * PAGE_4K,
      asid: block.asids[i]!,
      vmsa: (flags & VMSA) !== 0,
      validated: (flags & VALIDATED) !== 0,
      permissions: [...block.permissions.subarray(i * VMPLS, (i + 1) * VMPLS)],
    };
  }

  /** The entry that speaks for a page: its own, or that of the 2 MiB page it lies in. */
  covering(pfn: number): RmpEntry {
    return this.at(this.isInLargePage(pfn) ? pfn - (pfn % PAGES_PER_2M) : pfn);
  }

  isInLargePage(pfn: number): boolean {
    const block = this.#blocks.get(Math.floor(pfn / PAGES_PER_2M));
    return block !== undefined && (block.flags[0]! & LARGE) !== 0;
  }

  /** True when the page is not the hypervisor's: no store of the host goes through. */
  isAssigned(pfn: number): boolean {
    const block = this.#blocks.get(Math.floor(pfn / PAGES_PER_2M));
    if (block === undefined) return false;
    const authority = (block.flags[0]! & LARGE) === 0 ? pfn % PAGES_PER_2M : 0;
    return (block.flags[authority]! & ASSIGNED) !== 0;
  }

  /** Guest physical address at which a page is, by the entry that speaks for it. */
  gpaOf(pfn: number): number {
    const { gpa } = this.covering(pfn);
    return this.isInLargePage(pfn) ? gpa + (pfn % PAGES_PER_2M) * PAGE_4K : gpa;
  }

  /** Writes one place. `permissions` are kept as given; nothing is checked. @internal */
  set(pfn: number, entry: RmpEntry): void {
    const number = Math.floor(pfn / PAGES_PER_2M);
    const block = this.#blocks.get(number) ?? newBlock();
    const i = pfn % PAGES_PER_2M;
    const flags =
      (entry.assigned ? ASSIGNED : 0) |
      (entry.pageSize === RMP_2M ? LARGE : 0) |
      (entry.immutable ? IMMUTABLE : 0) |
      (entry.vmsa ? VMSA : 0) |
      (entry.validated ? VALIDATED : 0);
    block.used += Number(flags !== 0) - Number(block.flags[i] !== 0);
    block.flags[i] = flags;
    block.asids[i] = entry.asid;
    block.gfns[i] = entry.gpa / PAGE_4K;
    block.permissions.set(entry.permissions, i * VMPLS);
    if (block.used === 0) this.#blocks.delete(number);
    else this.#blocks.set(number, block);
  }

  /** Page numbers of all places whose entry is not that of a hypervisor's page, ascending. */
  usedPages(): number[] {
    const pfns: number[] = [];
    for (const [number, { flags }] of this.#blocks) {
      for (let i = 0; i < PAGES_PER_2M; i++) if (flags[i] !== 0) pfns.push(number * PAGES_PER_2M + i);
    }
    return pfns.sort((a, b) => a - b);
  }

  /** Makes all memory the hypervisor's again. @internal */
  clear(): void {
    this.#blocks.clear();
  }

  /** State for a saved machine. */
  save() {
    return { pages: this.pages, blocks: this.#blocks };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<Rmp['save']>): void {
    for (const [number, block] of saved.blocks) this.#blocks.set(number, block);
  }
}

function newBlock(): RmpBlock {
  return {
    flags: new Uint8Array(PAGES_PER_2M),
    asids: new Uint16Array(PAGES_PER_2M),
    gfns: new Float64Array(PAGES_PER_2M),
    permissions: new Uint8Array(PAGES_PER_2M * VMPLS),
    used: 0,
  };
}
