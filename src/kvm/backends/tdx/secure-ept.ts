/** Mapping private pages: the module's secure EPT, through SEAMCALLs, with a mirror of it (Linux host rules 2.4). */
import { offsetIn, PAGE_2M, PAGE_4K } from '../../../abi/address.ts';
import { TDH } from '../../../abi/leaves.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { Cpu } from '../../../kernel/cpu.ts';
import { type LeafTable, PAGES_IN_RANGE, PrivateMirror, rangeOf } from './private-mirror.ts';
import { isBusy, notTaken, tdCall } from './td-call.ts';
import type { TrustDomain } from './trust-domain.ts';

/** What came of a try to map: `retry` when the module was busy, and nothing was changed. @internal */
export type MapResult = 'done' | 'retry';

/** Bytes that an entry of each level maps. */
const LEVEL_BYTES: readonly number[] = [0, 1, 2, 3, 4].map((level) => PAGE_4K * 512 ** level);
const LEVEL_2M = 1;

/** @internal */
export class SecureEpt {
  readonly mirror = new PrivateMirror();
  readonly #td: TrustDomain;

  constructor(td: TrustDomain) {
    this.#td = td;
  }

  /**
   * PAGE.AUG of 4 KiB (level 0) or 2 MiB (level 1), in a TD that is final. A frame that maps `pfn` already is done.
   * Throws EIO with the VM broken, ENOMEM.
   */
  augment(cpu: Cpu, gfn: number, pfn: number, level: number): MapResult {
    if (this.mirror.pfn(gfn) !== undefined) return 'done';
    return level === LEVEL_2M ? this.#augmentLarge(cpu, gfn, pfn) : this.#augmentSmall(cpu, gfn, pfn);
  }

  /** PAGE.ADD of the host's page at `source`, in a TD that is not final. The frame maps nothing yet. */
  add(cpu: Cpu, gfn: number, pfn: number, source: number): MapResult {
    const table = this.#leafTable(cpu, gfn);
    if (table === 'retry') return table;
    const { host, tdr } = this.#td;
    const page = pfn * PAGE_4K;
    host.pages.lend(cpu, page);
    const status = tdCall(cpu, TDH.memPageAdd, gfn * PAGE_4K, tdr, page, source);
    if (status !== STATUS.TDX_SUCCESS) return this.#refused(cpu, TDH.memPageAdd, status, gfn, page);
    this.mirror.add(table, offsetIn(gfn, PAGES_IN_RANGE), pfn);
    return 'done';
  }

  #augmentSmall(cpu: Cpu, gfn: number, pfn: number): MapResult {
    const table = this.#leafTable(cpu, gfn);
    if (table === 'retry') return table;
    const { host, tdr } = this.#td;
    const page = pfn * PAGE_4K;
    host.pages.lend(cpu, page);
    const status = tdCall(cpu, TDH.memPageAug, gfn * PAGE_4K, tdr, page);
    if (status !== STATUS.TDX_SUCCESS) return this.#refused(cpu, TDH.memPageAug, status, gfn, page);
    this.mirror.add(table, offsetIn(gfn, PAGES_IN_RANGE), pfn);
    return 'done';
  }

  /** A large page needs no metadata of its own under Dynamic PAMT. */
  #augmentLarge(cpu: Cpu, gfn: number, pfn: number): MapResult {
    if (this.#upperTables(cpu, gfn) === 'retry') return 'retry';
    const page = pfn * PAGE_4K;
    for (let at = page; at < page + PAGE_2M; at += PAGE_4K) cpu.lp.clflushPage(at);
    const status = tdCall(cpu, TDH.memPageAug, gfn * PAGE_4K + LEVEL_2M, this.#td.tdr, page);
    if (isBusy(status)) return 'retry';
    if (status !== STATUS.TDX_SUCCESS)
      throw notTaken(this.#td.vm, TDH.memPageAug, status, { gfn, level: LEVEL_2M });
    this.mirror.addLarge(rangeOf(gfn), pfn);
    return 'done';
  }

  /** The module does not take a page: it stays the file's. */
  #refused(cpu: Cpu, leaf: number, status: bigint, gfn: number, page: number): MapResult {
    this.#td.host.pages.returned(cpu, page);
    if (isBusy(status)) return 'retry';
    throw notTaken(this.#td.vm, leaf, status, { gfn });
  }

  /** The table for `gfn`, with all above it. */
  #leafTable(cpu: Cpu, gfn: number): LeafTable | 'retry' {
    const range = rangeOf(gfn);
    const known = this.mirror.table(range);
    if (known !== undefined) return known;
    if (this.#upperTables(cpu, gfn) === 'retry') return 'retry';
    const page = this.#addTable(cpu, range, 1);
    return page === 'retry' ? page : this.mirror.addTable(range, page);
  }

  /** Tables down to that whose entries map 2 MiB; the root is the module's own. */
  #upperTables(cpu: Cpu, gfn: number): MapResult {
    for (let level = this.#td.rootLevel; level >= 2; level--) {
      const index = Math.floor((gfn * PAGE_4K) / LEVEL_BYTES[level]!);
      if (this.mirror.hasUpper(level, index)) continue;
      const page = this.#addTable(cpu, index, level);
      if (page === 'retry') return page;
      this.mirror.addUpper(level, index, page);
    }
    return 'done';
  }

  /** SEPT.ADD of the table that the entry of `level` number `index` leads to. */
  #addTable(cpu: Cpu, index: number, level: number): number | 'retry' {
    const { vm, host, tdr } = this.#td;
    const page = host.pages.allocLent(cpu, 'secure EPT');
    const status = tdCall(cpu, TDH.memSeptAdd, index * LEVEL_BYTES[level]! + level, tdr, page);
    if (status === STATUS.TDX_SUCCESS) return page;
    host.pages.freeLent(cpu, page);
    if (isBusy(status)) return 'retry';
    throw notTaken(vm, TDH.memSeptAdd, status, { index, level });
  }
}
