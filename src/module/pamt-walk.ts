/** The way from a 1 GiB entry down to the entry that answers for a page, with every entry on it locked. */
import { index2m, index4k } from '../abi/address.ts';
import { LEVEL_1G, LEVEL_2M, LEVEL_4K, type PageLevel } from '../abi/page-types.ts';
import { STATUS } from '../abi/status-codes.ts';
import {
  type LockMode,
  promoteHpLock,
  releaseHpLock,
  releaseHpShared,
  tryHpLock,
  tryHpShared,
} from './locks.ts';
import { type EntryTable, type PamtBlock, PamtEntry } from './pamt-block.ts';

/** A successful walk; holds its locks until `release`. @public */
export class PamtWalk {
  readonly block: PamtBlock;
  /** Level of `entry`, which may be above the level asked for. */
  readonly level: PageLevel;
  readonly #table: EntryTable;
  readonly #index: number;
  readonly #mode: LockMode;
  /** Number of the 2 MiB range in the block. */
  readonly #range: number;

  constructor(
    block: PamtBlock,
    level: PageLevel,
    table: EntryTable,
    index: number,
    mode: LockMode,
    range: number,
  ) {
    this.block = block;
    this.level = level;
    this.#table = table;
    this.#index = index;
    this.#mode = mode;
    this.#range = range;
  }

  /** Type of `entry`, without making one. */
  get type(): number {
    return this.#table.types[this.#index]!;
  }

  get entry(): PamtEntry {
    return new PamtEntry(this.#table, this.#index);
  }

  /** The 2 MiB entry above a 4 KiB one, else undefined. */
  get parent(): PamtEntry | undefined {
    return this.level === LEVEL_4K ? new PamtEntry(this.block.table2m, this.#range) : undefined;
  }

  release(): void {
    releaseHpLock(this.#table.locks, this.#index, this.#mode);
    if (this.level === LEVEL_1G) return;
    if (this.level === LEVEL_4K) releaseHpShared(this.block.table2m.locks, this.#range);
    releaseHpShared(this.block.table1g.locks, 0);
  }
}

/**
 * Walks `block` to the entry of the page at `address` and locks it in `mode`, the entries above it shared. Stops at
 * `level` even if the page is described further down. `guest`: the walk is made for a TD rather than for the host.
 * Returns the walk, or TDX_OPERAND_BUSY or TDX_OPERAND_BUSY_HOST_PRIORITY with nothing locked.
 * @public
 */
export function walkPamt(
  block: PamtBlock,
  address: number,
  mode: LockMode,
  level: PageLevel = LEVEL_4K,
  guest = false,
): PamtWalk | bigint {
  const { table1g, table2m } = block;
  const range = index2m(address);
  const locked1g = tryHpShared(table1g.locks, 0, guest);
  if (locked1g !== STATUS.TDX_SUCCESS) return locked1g;
  if (level === LEVEL_1G || table1g.types[0] !== block.nodeType(LEVEL_1G)) {
    const status = mode === 'exclusive' ? promoteHpLock(table1g.locks, 0) : STATUS.TDX_SUCCESS;
    if (status === STATUS.TDX_SUCCESS) return new PamtWalk(block, LEVEL_1G, table1g, 0, mode, range);
    releaseHpShared(table1g.locks, 0);
    return status;
  }
  let status = tryHpShared(table2m.locks, range, guest);
  if (status === STATUS.TDX_SUCCESS) {
    if (level === LEVEL_2M || table2m.types[range] !== block.nodeType(LEVEL_2M)) {
      if (mode === 'exclusive') status = promoteHpLock(table2m.locks, range);
      if (status === STATUS.TDX_SUCCESS) return new PamtWalk(block, LEVEL_2M, table2m, range, mode, range);
    } else {
      const table = block.table4k(range);
      const index = index4k(address);
      status = tryHpLock(table.locks, index, mode, guest);
      if (status === STATUS.TDX_SUCCESS) return new PamtWalk(block, LEVEL_4K, table, index, mode, range);
    }
    releaseHpShared(table2m.locks, range);
  }
  releaseHpShared(table1g.locks, 0);
  return status;
}
