/** The way from a 1 GiB entry down to the entry that answers for a page, with every entry on it locked. */
import { LEVEL_1G, LEVEL_2M, LEVEL_4K, type PageLevel } from '../abi/page-types.ts';
import { STATUS } from '../abi/status-codes.ts';
import type { LockMode } from './locks.ts';
import type { PamtBlock, PamtEntry } from './pamt-block.ts';

/** What a walk shall find. @public */
export interface WalkTarget {
  /** Lock on the entry found; the entries above it are locked shared. */
  readonly mode: LockMode;
  /** Stop at this level even if the page is described further down. Default: 4 KiB. */
  readonly level?: PageLevel;
  /** The walk is made for a TD rather than for the host. */
  readonly guest?: boolean;
}

/** A successful walk; holds its locks until `release`. @public */
export class PamtWalk {
  /** Level of `entry`, which may be above the level asked for. */
  readonly level: PageLevel;
  readonly entry: PamtEntry;
  readonly block: PamtBlock;
  /** The 2 MiB entry above a 4 KiB one, else undefined. */
  readonly parent: PamtEntry | undefined;
  readonly #grandparent: PamtEntry | undefined;
  readonly #mode: LockMode;

  constructor(
    block: PamtBlock,
    level: PageLevel,
    entry: PamtEntry,
    mode: LockMode,
    grandparent?: PamtEntry,
    parent?: PamtEntry,
  ) {
    this.block = block;
    this.level = level;
    this.entry = entry;
    this.parent = parent;
    this.#grandparent = grandparent;
    this.#mode = mode;
  }

  release(): void {
    this.entry.unlock(this.#mode);
    this.parent?.unlockShared();
    this.#grandparent?.unlockShared();
  }
}

/**
 * Walks `block` to the entry of the page at `address`. Returns the walk, or TDX_OPERAND_BUSY or
 * TDX_OPERAND_BUSY_HOST_PRIORITY with nothing locked.
 * @public
 */
export function walkPamt(
  block: PamtBlock,
  address: number,
  { mode, level = LEVEL_4K, guest = false }: WalkTarget,
): PamtWalk | bigint {
  const { entry1g } = block;
  const locked1g = entry1g.tryShared(guest);
  if (locked1g !== STATUS.TDX_SUCCESS) return locked1g;
  if (level === LEVEL_1G || entry1g.type !== block.nodeType(LEVEL_1G)) {
    const status = mode === 'exclusive' ? entry1g.promoteLock() : STATUS.TDX_SUCCESS;
    if (status === STATUS.TDX_SUCCESS) return new PamtWalk(block, LEVEL_1G, entry1g, mode);
    entry1g.unlockShared();
    return status;
  }
  const entry2m = block.entry2m(address);
  let status = entry2m.tryShared(guest);
  if (status === STATUS.TDX_SUCCESS) {
    if (level === LEVEL_2M || entry2m.type !== block.nodeType(LEVEL_2M)) {
      if (mode === 'exclusive') status = entry2m.promoteLock();
      if (status === STATUS.TDX_SUCCESS) return new PamtWalk(block, LEVEL_2M, entry2m, mode, entry1g);
    } else {
      const entry = block.entry4k(address);
      status = entry.tryLock(mode, guest);
      if (status === STATUS.TDX_SUCCESS) return new PamtWalk(block, LEVEL_4K, entry, mode, entry1g, entry2m);
    }
    entry2m.unlockShared();
  }
  entry1g.unlockShared();
  return status;
}
