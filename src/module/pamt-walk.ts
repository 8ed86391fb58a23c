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
  readonly #above: readonly PamtEntry[];
  readonly #mode: LockMode;

  constructor(
    block: PamtBlock,
    level: PageLevel,
    entry: PamtEntry,
    above: readonly PamtEntry[],
    mode: LockMode,
  ) {
    this.block = block;
    this.level = level;
    this.entry = entry;
    this.#above = above;
    this.#mode = mode;
  }

  /** The 2 MiB entry above a 4 KiB one, else undefined. */
  get parent(): PamtEntry | undefined {
    return this.level === LEVEL_4K ? this.#above[1] : undefined;
  }

  release(): void {
    this.entry.unlock(this.#mode);
    for (let i = this.#above.length - 1; i >= 0; i--) this.#above[i]!.unlock('shared');
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
  const above: PamtEntry[] = [];
  for (const at of [LEVEL_1G, LEVEL_2M] as const) {
    const entry = block.entry(address, at);
    const status = entry.tryLock('shared', guest);
    if (status !== STATUS.TDX_SUCCESS) return giveUp(above, status);
    if (level === at || entry.type !== block.nodeType(at)) {
      const promoted = mode === 'exclusive' ? entry.promoteLock() : STATUS.TDX_SUCCESS;
      if (promoted !== STATUS.TDX_SUCCESS) return giveUp([...above, entry], promoted);
      return new PamtWalk(block, at, entry, above, mode);
    }
    above.push(entry);
  }
  const entry = block.entry(address, LEVEL_4K);
  const status = entry.tryLock(mode, guest);
  if (status !== STATUS.TDX_SUCCESS) return giveUp(above, status);
  return new PamtWalk(block, LEVEL_4K, entry, above, mode);
}

function giveUp(locked: readonly PamtEntry[], status: bigint): bigint {
  for (const entry of locked.toReversed()) entry.unlock('shared');
  return status;
}
