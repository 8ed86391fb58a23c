/** The EPT for shared pages: ordinary tables in the host's memory, which the module walks and does not protect. */
import { alignDown, offsetIn, PAGE_4K } from '../../../abi/address.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';
import type { TrustDomain } from './trust-domain.ts';

/** Read, write and execute; write-back; a 2 MiB page (Intel SDM volume 3, EPT entries). */
const ENTRY = { READ_EXECUTE: 0b101n, WRITE: 0b10n, WRITE_BACK: 6n << 3n, LARGE: 1n << 7n } as const;
const ALL_ACCESS = 0b111n;
/** Bits 51:12 of an entry. */
const ADDRESS = 0xf_ffff_ffff_f000n;
/** Nothing is mapped, and an access exits: bit 63 keeps the processor from telling the guest instead. */
const ABSENT = 1n << 63n;
/** Nothing is there at all: the guest hears of its access in a #VE. */
const MMIO = 0n;
const ENTRY_BYTES = 8;
const ENTRIES = 512;
const LEVEL_BYTES: readonly number[] = [0, 1, 2, 3, 4].map((level) => PAGE_4K * ENTRIES ** level);

/** Guest frames are without the shared bit. @internal */
export class SharedEpt {
  /** Address of the root table. */
  readonly root: number;
  readonly #td: TrustDomain;
  /** By level of their entries: table by number of the range it maps. */
  readonly #tables: Map<number, number>[] = LEVEL_BYTES.map(() => new Map());

  /** Throws ENOMEM. */
  constructor(td: TrustDomain) {
    this.#td = td;
    this.root = this.#newTable();
  }

  /** `level` 0 is 4 KiB, 1 is 2 MiB. Throws ENOMEM. */
  map(gfn: number, pfn: number, level: number, writable: boolean): void {
    const access = ENTRY.READ_EXECUTE | ENTRY.WRITE_BACK | (writable ? ENTRY.WRITE : 0n);
    const large = level === 0 ? 0n : ENTRY.LARGE;
    this.#write(this.#entryAt(this.#gpa(gfn), level), (BigInt(pfn) * BigInt(PAGE_4K)) | access | large);
  }

  /** Makes accesses to `gfn` a #VE in the guest. Throws ENOMEM. */
  mapMmio(gfn: number): void {
    this.#write(this.#entryAt(this.#gpa(gfn), 0), MMIO);
  }

  isMapped(gfn: number): boolean {
    const gpa = this.#gpa(gfn);
    for (const level of [0, 1]) {
      const table = this.#tables[level]!.get(rangeNumber(gpa, level));
      if (table === undefined) continue;
      const entry = this.#read(table + entryOffset(gpa, level));
      if ((entry & ALL_ACCESS) !== 0n && (level === 0 || (entry & ENTRY.LARGE) !== 0n)) return true;
    }
    return false;
  }

  /** Every page that is mapped: first frames and number of pages of 4 KiB. */
  *leaves(): Generator<{ readonly gfn: number; readonly pfn: number; readonly pages: number }> {
    const firstGfn = this.#gpa(0) / PAGE_4K;
    for (const level of [0, 1]) {
      const pages = LEVEL_BYTES[level]! / PAGE_4K;
      for (const [range, table] of this.#tables[level]!) {
        const bytes = this.#lp.load(table, ENTRIES * ENTRY_BYTES);
        for (const [i, entry] of new BigUint64Array(bytes.buffer, bytes.byteOffset, ENTRIES).entries()) {
          if ((entry & ALL_ACCESS) === 0n || (level === 1 && (entry & ENTRY.LARGE) === 0n)) continue;
          const pfn = Number((entry & ADDRESS) >> 12n);
          yield { gfn: (range * ENTRIES + i) * pages - firstGfn, pfn, pages };
        }
      }
    }
  }

  /** Removes what maps frames of [startGfn, endGfn); a large page goes as a whole. */
  zap(startGfn: number, endGfn: number): void {
    for (const level of [0, 1]) {
      const bytes = LEVEL_BYTES[level]!;
      const start = alignDown(this.#gpa(startGfn), bytes);
      const end = this.#gpa(startGfn) + (endGfn - startGfn) * PAGE_4K;
      for (const [range, table] of this.#tables[level]!) {
        const first = range * LEVEL_BYTES[level + 1]!;
        const from = Math.max(start, first);
        const to = Math.min(end, first + LEVEL_BYTES[level + 1]!);
        if (from < to) this.#clear(table, (from - first) / bytes, Math.ceil((to - first) / bytes), level);
      }
    }
  }

  /** Gives all tables back. */
  free(): void {
    const { pages } = this.#td.host;
    for (const level of this.#tables) for (const page of level.values()) pages.free(page);
    pages.free(this.root);
  }

  /** Entries [from, to) of a table become absent; at level 1 only those of large pages, not those of tables. */
  #clear(table: number, from: number, to: number, level: number): void {
    const lp = this.#lp;
    const bytes = lp.load(table + from * ENTRY_BYTES, (to - from) * ENTRY_BYTES).slice();
    const entries = new DataView(bytes.buffer);
    let changed = false;
    for (let at = 0; at < bytes.length; at += ENTRY_BYTES) {
      const entry = entries.getBigUint64(at, true);
      if (entry === ABSENT || (level === 1 && (entry & ENTRY.LARGE) === 0n)) continue;
      entries.setBigUint64(at, ABSENT, true);
      changed = true;
    }
    if (changed) lp.store(table + from * ENTRY_BYTES, bytes);
  }

  /** Address of the entry for `gpa` at `level`, with all tables above it. */
  #entryAt(gpa: number, level: number): number {
    let table = this.root;
    for (let above = this.#td.rootLevel; above > level; above--) {
      const known = this.#tables[above - 1]!.get(rangeNumber(gpa, above - 1));
      const next = known ?? this.#newTable();
      if (known === undefined) {
        this.#tables[above - 1]!.set(rangeNumber(gpa, above - 1), next);
        this.#write(table + entryOffset(gpa, above), BigInt(next) | ALL_ACCESS);
      }
      table = next;
    }
    return table + entryOffset(gpa, level);
  }

  #newTable(): number {
    const page = this.#td.host.pages.alloc('shared EPT');
    this.#lp.store(page, new Uint8Array(new BigUint64Array(ENTRIES).fill(ABSENT).buffer));
    return page;
  }

  #gpa(gfn: number): number {
    return gfn * PAGE_4K + 2 ** this.#td.sharedBit!;
  }

  #read(address: number): bigint {
    const bytes = this.#lp.load(address, ENTRY_BYTES);
    return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  }

  #write(address: number, entry: bigint): void {
    this.#lp.store(address, new Uint8Array(BigUint64Array.of(entry).buffer));
  }

  get #lp(): LogicalProcessor {
    return this.#td.cpu.lp;
  }
}

/** Number of the range that one table with entries of `level` maps. */
function rangeNumber(gpa: number, level: number): number {
  return Math.floor(gpa / LEVEL_BYTES[level + 1]!);
}

function entryOffset(gpa: number, level: number): number {
  return offsetIn(Math.floor(gpa / LEVEL_BYTES[level]!), ENTRIES) * ENTRY_BYTES;
}
