/**
 * A secure EPT (module facts 7): the tree in the TD's private memory that maps its guest physical addresses. The
 * tables are real pages of the machine's memory under the TD's KeyID.
 */
import { offsetIn, PAGE_4K, pfnOf } from '../../abi/address.ts';
import { RCX, RDX, type Registers } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { isMapped, type PageMapping, type PhysicalMemory } from '../../machine/memory.ts';
import {
  isLeafEntry,
  publicSeptState,
  SEPT_HIGH,
  SEPT_LOW,
  SEPT_RWX_XU,
  SEPT_STATE,
  type SeptEntry,
  septState,
} from './sept-entry.ts';

/** Levels of entries: the size each maps or covers. @public */
export const SEPT_LEVEL = { PT_4K: 0, PD_2M: 1, PDPT_1G: 2, PML4: 3, PML5: 4 } as const;

/** Entries of a table. */
const ENTRIES = 512;
/** Pages below an entry of level 3: the indexes of levels 0 to 2 in 27 bits. */
const LOWER_PAGES = ENTRIES ** 3;

/** Bytes that an entry of each level covers. @public */
export const SEPT_LEVEL_SIZES: readonly number[] = [0, 1, 2, 3, 4].map((level) => PAGE_4K * ENTRIES ** level);

/** Where a walk ended. `entry` is what the walk saw; `at` finds the entry itself. @public */
export interface SeptPosition {
  readonly level: number;
  readonly at: number;
  readonly entry: SeptEntry;
}

/** @public */
export class SecureEpt {
  readonly keyId: number;
  readonly rootLevel: number;
  /** End of the TD's private guest physical addresses. */
  readonly gpaLimit: number;
  readonly #memory: PhysicalMemory;
  readonly #rootPfn: number;
  /** Bits of an entry's high half that belong to the page number without its KeyID. */
  readonly #pfnHigh: number;
  readonly #lastTables: { readonly pfn: number; readonly page: PageMapping }[];

  constructor(
    memory: PhysicalMemory,
    keyId: number,
    keyIdStartBit: number,
    rootPfn: number,
    rootLevel: number,
    gpaLimit: number,
  ) {
    this.keyId = keyId;
    this.rootLevel = rootLevel;
    this.gpaLimit = gpaLimit;
    this.#memory = memory;
    this.#rootPfn = rootPfn;
    this.#pfnHigh = 2 ** (keyIdStartBit - 32) - 1;
    const root = { pfn: rootPfn, page: memory.map(rootPfn, keyId) };
    this.#lastTables = Array.from({ length: rootLevel + 1 }, () => root);
  }

  /** Walks down to the entry of `gpa` at `level`, or to where the way ends: an entry not present, or a leaf. */
  walk(gpa: number, level: number): SeptPosition {
    let pfn = this.#rootPfn;
    // The index of a level is nine bits of the page number, which has more bits than integers do.
    const page = pfnOf(gpa);
    const lower = offsetIn(page, LOWER_PAGES);
    const upper = Math.floor(page / LOWER_PAGES);
    for (let current = this.rootLevel; ; current--) {
      const index = current <= SEPT_LEVEL.PDPT_1G ? lower >>> (9 * current) : upper >>> (9 * current - 27);
      const at = this.#table(pfn, current) + 2 * (index % ENTRIES);
      const words = this.#memory.frames.words32;
      const low = words[at]!;
      if (current === level || (low & SEPT_LOW.RWX) === 0 || (low & SEPT_LOW.LEAF) !== 0) {
        return { level: current, at, entry: this.read(at) };
      }
      if (current === 0) throw new Error('secure EPT entry at the lowest level is neither leaf nor absent');
      pfn = this.#pfn(low, words[at + 1]!);
    }
  }

  /** `tableAt` that remembers the last table of each level: consecutive walks mostly share them. */
  #table(pfn: number, level: number): number {
    const last = this.#lastTables[level]!;
    if (last.pfn === pfn && isMapped(last.page, this.keyId)) return last.page.frame >>> 2;
    const page = this.#memory.map(pfn, this.keyId);
    this.#lastTables[level] = { pfn, page };
    return page.frame >>> 2;
  }

  read(at: number): SeptEntry {
    const words = this.#memory.frames.words32;
    return { low: words[at]!, high: words[at + 1]! };
  }

  /** Replaces the entry, and with it its lock and the host's claim to that. */
  write(at: number, { low, high }: SeptEntry): void {
    const words = this.#memory.frames.words32;
    words[at] = low;
    words[at + 1] = high;
  }

  /** Replaces the entry but keeps a host's claim to its lock. */
  writeKeepingClaim(at: number, { low, high }: SeptEntry): void {
    const words = this.#memory.frames.words32;
    words[at] = low;
    words[at + 1] = (high & ~SEPT_HIGH.TDHP) | (words[at + 1]! & SEPT_HIGH.TDHP);
  }

  /** Takes the entry's lock for the host; failing leaves the host's claim. TDX_SUCCESS or TDX_OPERAND_BUSY. */
  tryLock(at: number): bigint {
    const words = this.#memory.frames.words32;
    if ((words[at]! & SEPT_LOW.TDEL) !== 0) {
      words[at + 1]! |= SEPT_HIGH.TDHP;
      return STATUS.TDX_OPERAND_BUSY;
    }
    words[at]! |= SEPT_LOW.TDEL;
    words[at + 1]! &= ~SEPT_HIGH.TDHP;
    return STATUS.TDX_SUCCESS;
  }

  /** Takes the entry's lock for the TD. TDX_SUCCESS, TDX_OPERAND_BUSY or TDX_OPERAND_BUSY_HOST_PRIORITY. */
  tryLockForGuest(at: number): bigint {
    const words = this.#memory.frames.words32;
    if ((words[at]! & SEPT_LOW.TDEL) !== 0) return STATUS.TDX_OPERAND_BUSY;
    if ((words[at + 1]! & SEPT_HIGH.TDHP) !== 0) return STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY;
    words[at]! |= SEPT_LOW.TDEL;
    return STATUS.TDX_SUCCESS;
  }

  unlock(at: number): void {
    this.#memory.frames.words32[at]! &= ~SEPT_LOW.TDEL;
  }

  /** The page number in an entry without its KeyID. */
  pfnOf(entry: SeptEntry): number {
    return this.#pfn(entry.low, entry.high);
  }

  /** `pfn` with the TD's KeyID, as entries hold it. */
  withKeyId(pfn: number): number {
    return pfn + this.keyId * (this.#pfnHigh + 1) * 0x10_0000;
  }

  #pfn(low: number, high: number): number {
    return (high & this.#pfnHigh) * 0x10_0000 + (low >>> 12);
  }

  /** Physical address of the page that the leaf `entry` at `level` maps. */
  pageAddress(entry: SeptEntry, level: number): number {
    const address = this.pfnOf(entry) * PAGE_4K;
    return address - offsetIn(address, SEPT_LEVEL_SIZES[level]!);
  }

  /** Physical address of `gpa` in the page that the leaf `entry` at `level` maps. */
  translate(entry: SeptEntry, level: number, gpa: number): number {
    return this.pageAddress(entry, level) + offsetIn(gpa, SEPT_LEVEL_SIZES[level]!);
  }

  /** Place of the first entry of the table `pfn`; entry `i` is `2 * i` further. */
  tableAt(pfn: number): number {
    return this.#memory.frameOf(pfn, this.keyId) >>> 2;
  }
}

/** Low bits of a leaf and of a non-leaf entry that the host may see, beside a leaf's address and SVE. */
const LEAF_LOW = SEPT_RWX_XU | SEPT_LOW.MT | SEPT_LOW.TDMEM | SEPT_LOW.LEAF;
const NON_LEAF_LOW = SEPT_RWX_XU | SEPT_LOW.LEAF;

/**
 * Puts an entry as the host may see it into RCX, and its level and state into RDX: the details of a secure EPT
 * error and the answer of MEM.SEPT.RD.
 * @public
 */
export function putSeptDetails(regs: Registers, ept: SecureEpt, { level, entry }: SeptPosition): void {
  const seen = visibleEntry(ept, entry);
  regs.d[2 * RCX] = seen.low;
  regs.d[2 * RCX + 1] = seen.high;
  regs.d[2 * RDX] = level | (publicSeptState(entry) << 8);
  regs.d[2 * RDX + 1] = 0;
}

function visibleEntry(ept: SecureEpt, entry: SeptEntry): SeptEntry {
  if (septState(entry) === SEPT_STATE.FREE) return { low: 0, high: SEPT_HIGH.SVE };
  if (!isLeafEntry(entry)) return { low: entry.low & NON_LEAF_LOW, high: 0 };
  const pfn = ept.pfnOf(entry);
  return {
    low: (entry.low & LEAF_LOW) | (offsetIn(pfn, 0x10_0000) << 12),
    high: (entry.high & SEPT_HIGH.SVE) | Math.floor(pfn / 0x10_0000),
  };
}
