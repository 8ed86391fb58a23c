/**
 * The physical address metadata table (module facts 4): who owns every page of the TDMRs, at which size, and
 * the locks on it.
 *
 * Entries are kept beside the simulated memory rather than in it, by the 1 GiB block they describe. They belong
 * to the machine's memory all the same: they outlive the module image, and an update finds them as they were.
 */
import { alignUp, CACHE_LINE, index1g, offsetIn, PAGE_1G, PAGE_2M, PAGE_4K } from '../abi/address.ts';
import { LEVEL_4K, type PageLevel } from '../abi/page-types.ts';
import { MachineCheck } from '../machine/exceptions.ts';
import type { PhysicalMemory } from '../machine/memory.ts';
import type { LockMode } from './locks.ts';
import { PAMT_ENTRY_SIZE, PamtBlock, type PamtEntry } from './pamt-block.ts';
import { type PamtWalk, walkPamt } from './pamt-walk.ts';
import { Tdmr, tdmrAt } from './tdmr-table.ts';

/** 4 KiB entries that one SYS.TDMR.INIT initialises, with static and with dynamic PAMT (module facts 3). */
const INIT_ENTRIES = 1024;
const INIT_ENTRIES_DYNAMIC = 4096;

/** Blocks that somebody looked at, by number of the 1 GiB block, for every machine's memory. */
const CONTENTS = new WeakMap<PhysicalMemory, Map<number, PamtBlock>>();

function blocksOf(memory: PhysicalMemory): Map<number, PamtBlock> {
  const known = CONTENTS.get(memory);
  if (known !== undefined) return known;
  const blocks = new Map<number, PamtBlock>();
  CONTENTS.set(memory, blocks);
  return blocks;
}

/** @public */
export class Pamt {
  /** TDMRs of the configuration in force, ascending. */
  readonly tdmrs: readonly Tdmr[];
  /** The pages' 4 KiB entries are in page pairs that the host adds and removes. */
  readonly dynamic: boolean;
  readonly #memory: PhysicalMemory;
  /** The module's own KeyID, which owns the memory that holds the table. */
  readonly #keyId: number;
  readonly #blocks: Map<number, PamtBlock>;
  /** Blocks that were found in the TDMRs, by number: what is initialised stays so. */
  readonly #usable: (PamtBlock | undefined)[];

  /** The entry and line of memory that were last found intact, and `ownerChanges` of the memory at the time. */
  readonly #lastRead = { page: -1, level: LEVEL_4K as PageLevel, line: -1, ownerChanges: -1 };

  constructor(memory: PhysicalMemory, tdmrs: readonly Tdmr[], keyId: number, dynamic: boolean) {
    this.tdmrs = tdmrs;
    this.dynamic = dynamic;
    this.#memory = memory;
    this.#keyId = keyId;
    this.#blocks = blocksOf(memory);
    this.#usable = new Array(index1g(tdmrs.at(-1)?.end ?? 0));
  }

  /** The next step of a TDMR's initialisation: a fixed number of entries from `nextToInit` on. */
  initialiseStep(tdmr: Tdmr): void {
    const from = tdmr.nextToInit - tdmr.base;
    const to = from + (this.dynamic ? INIT_ENTRIES_DYNAMIC : INIT_ENTRIES) * PAGE_4K;
    if (from % PAGE_1G === 0) this.#blocks.delete(tdmr.nextToInit / PAGE_1G);
    const bytesPer4k = this.dynamic ? 1 / 8 : PAMT_ENTRY_SIZE;
    this.#claim(tdmr.pamt4kBase, (from / PAGE_4K) * bytesPer4k, (to / PAGE_4K) * bytesPer4k);
    this.#claim(tdmr.pamt2mBase, (from / PAGE_2M) * PAMT_ENTRY_SIZE, (to / PAGE_2M) * PAMT_ENTRY_SIZE);
    this.#claim(
      tdmr.pamt1gBase,
      Math.floor(from / PAGE_1G) * PAMT_ENTRY_SIZE,
      Math.floor(to / PAGE_1G) * PAMT_ENTRY_SIZE,
    );
    tdmr.nextToInit = tdmr.base + to;
  }

  /** The block of the page at `address`, or undefined outside the initialised part of the TDMRs. */
  block(address: number): PamtBlock | undefined {
    return this.#usable[index1g(address)] ?? this.#findBlock(address);
  }

  #findBlock(address: number): PamtBlock | undefined {
    const tdmr = this.#usableTdmr(address);
    if (tdmr === undefined) return undefined;
    const index = index1g(address);
    const block = this.#blocks.get(index) ?? new PamtBlock(index * PAGE_1G, tdmr, this.dynamic);
    this.#blocks.set(index, block);
    this.#usable[index] = block;
    return block;
  }

  /**
   * Locks the way to the page at `address`, as `walkPamt` does. Returns undefined outside the initialised part of the
   * TDMRs, and TDX_OPERAND_BUSY or TDX_OPERAND_BUSY_HOST_PRIORITY where an entry is locked. Throws MachineCheck where
   * somebody wrote over the memory that holds the entry.
   */
  walk(
    address: number,
    mode: LockMode,
    level: PageLevel = LEVEL_4K,
    guest = false,
  ): PamtWalk | bigint | undefined {
    const block = this.block(address);
    if (block === undefined) return undefined;
    this.#consume(block, address, level);
    return walkPamt(block, address, mode, level, guest);
  }

  /** The entry of a page that is known to be in an initialised block, without locking. Throws elsewhere. */
  entry(address: number, level: PageLevel): PamtEntry {
    const block = this.block(address);
    if (block === undefined) throw new Error(`no page metadata for 0x${address.toString(16)}`);
    return block.entry(address, level);
  }

  /**
   * Marks two pages as lent to hold metadata and takes their memory over. Returns the number of the one that is lent or
   * reserved already, and does nothing; undefined when both are taken.
   */
  lendPair(first: number, second: number): 0 | 1 | undefined {
    if (this.block(first)!.isLent(first)) return 0;
    if (second === first || this.block(second)!.isLent(second)) return 1;
    for (const page of [first, second]) {
      this.block(page)!.setLent(page, true);
      this.#memory.claim(page, page + PAGE_4K, this.#keyId);
    }
    return undefined;
  }

  /** Blocks somebody looked at: the measure of this table's memory. */
  get blocksInUse(): number {
    return this.#blocks.size;
  }

  /** Blocks somebody looked at, of the TDMRs in force, ascending. */
  get blocks(): readonly PamtBlock[] {
    return [...this.#blocks.values()]
      .filter(({ base }) => this.#usableTdmr(base) !== undefined)
      .sort((a, b) => a.base - b.base);
  }

  /** State for a saved machine; the contents are `savePageMetadata`'s. */
  save() {
    return {
      tdmrs: this.tdmrs.map((tdmr) => tdmr.save()),
      keyId: this.#keyId,
      dynamic: this.dynamic,
    };
  }

  /** The table that `save` was called on, again. */
  static restored(memory: PhysicalMemory, saved: ReturnType<Pamt['save']>): Pamt {
    return new Pamt(memory, saved.tdmrs.map(Tdmr.restored), saved.keyId, saved.dynamic);
  }

  #usableTdmr(address: number): Tdmr | undefined {
    const tdmr = tdmrAt(this.tdmrs, address);
    return tdmr !== undefined && address < tdmr.usableEnd ? tdmr : undefined;
  }

  /**
   * The module's read of the entry of the page at `address`: it fails as any read under a private KeyID of a line that is
   * not the KeyID's own. Calls in a row mostly read the same TDR's entry while no line changes hands.
   */
  #consume(block: PamtBlock, address: number, level: PageLevel): void {
    const read = this.#lastRead;
    const { ownerChanges } = this.#memory;
    if (read.page === address && read.level === level && read.ownerChanges === ownerChanges) return;
    const at = block.entryAddress(address, level);
    // Four entries share a line.
    const line = at - offsetIn(at, CACHE_LINE);
    if (read.line !== line || read.ownerChanges !== ownerChanges) {
      if (!this.#memory.isIntact(at, this.#keyId))
        throw new MachineCheck(at, 'page metadata were written over');
      read.line = line;
    }
    read.page = address;
    read.level = level;
    read.ownerChanges = ownerChanges;
  }

  /** Takes over the pages of a PAMT area whose first entry lies in `[from, to)` of the area. */
  #claim(area: number, from: number, to: number): void {
    const start = alignUp(from, PAGE_4K);
    const end = alignUp(to, PAGE_4K);
    if (start < end) this.#memory.claim(area + start, area + end, this.#keyId);
  }
}

/** Page metadata in `memory` for a saved machine, whichever module image wrote them. @internal */
export function savePageMetadata(memory: PhysicalMemory) {
  const blocks = [...blocksOf(memory).values()].sort((a, b) => a.base - b.base);
  const tdmrs = [...new Set(blocks.map(({ tdmr }) => tdmr))];
  return {
    tdmrs: tdmrs.map((tdmr) => tdmr.save()),
    blocks: blocks.map((block) => ({ ...block.save(), tdmr: tdmrs.indexOf(block.tdmr) })),
  };
}

/** Puts saved page metadata into `memory`, which has none. @internal */
export function restorePageMetadata(
  memory: PhysicalMemory,
  saved: ReturnType<typeof savePageMetadata>,
): void {
  const tdmrs = saved.tdmrs.map(Tdmr.restored);
  for (const contents of saved.blocks) {
    const block = new PamtBlock(contents.base, tdmrs[contents.tdmr]!, contents.dynamic);
    block.restore(contents);
    blocksOf(memory).set(contents.base / PAGE_1G, block);
  }
}
