/** The locks that a leaf holds while it runs. */
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { LeafHandler } from '../leaf.ts';
import type { LockMode } from '../locks.ts';
import type { TdxModule } from '../tdx-module.ts';
import type { ControlStructure } from './control-structure.ts';

/** Something that is locked until it is released. @public */
export interface Releasable {
  release(): void;
}

/** A lock on the pile, and what was taken before it. */
interface Hold {
  readonly lock: Releasable;
  readonly before: Hold | undefined;
}

/** Locks taken so far; released together, the last one first. @public */
export class Held {
  #last: Hold | undefined;

  /** Holds `lock` until the leaf ends. */
  add<T extends Releasable>(lock: T): T {
    this.#last = { lock, before: this.#last };
    return lock;
  }

  /** Releases one lock before the leaf ends. */
  drop(lock: Releasable): void {
    const others = this.take().filter((other) => other !== lock);
    for (const other of others) this.add(other);
    lock.release();
  }

  /** Keeps everything locked beyond the leaf's end; the caller takes charge of the locks, in the order of their taking. */
  take(): readonly Releasable[] {
    const taken: Releasable[] = [];
    for (let hold = this.#last; hold !== undefined; hold = hold.before) taken.unshift(hold.lock);
    this.#last = undefined;
    return taken;
  }

  release(): void {
    let hold = this.#last;
    this.#last = undefined;
    for (; hold !== undefined; hold = hold.before) hold.lock.release();
  }
}

/** A lock in a field of a control structure. */
class FieldLock implements Releasable {
  readonly #structure: ControlStructure;
  readonly #offset: number;
  readonly #mode: LockMode;

  constructor(structure: ControlStructure, offset: number, mode: LockMode) {
    this.#structure = structure;
    this.#offset = offset;
    this.#mode = mode;
  }

  release(): void {
    this.#structure.unlock(this.#offset, this.#mode);
  }
}

/** Takes the host-priority lock at `offset` of `structure` until the leaf ends. Statuses as of `tryHpLock`. @public */
export function lockField(
  held: Held,
  structure: ControlStructure,
  offset: number,
  mode: LockMode,
  guest = false,
): bigint {
  const status = structure.tryLock(offset, mode, guest);
  if (status === STATUS.TDX_SUCCESS) held.add(new FieldLock(structure, offset, mode));
  return status;
}

/** Releases locks in the opposite order of their taking. @public */
export function releaseAll(locks: readonly Releasable[]): void {
  for (let i = locks.length - 1; i >= 0; i--) locks[i]!.release();
}

/** Runs a leaf or a part of one and releases what it holds, whatever it returns. @public */
export function holding<T>(leaf: (held: Held) => T): T {
  const held = new Held();
  try {
    return leaf(held);
  } finally {
    held.release();
  }
}

/** A leaf that takes locks: guard clauses, then the effect, as in `LeafHandler`. @public */
export type LockingHandler = (module: TdxModule, lp: LogicalProcessor, held: Held, version: number) => bigint;

/** The handler of a leaf that takes locks: what `run` holds is released, whatever it returns. @public */
export function locking(run: LockingHandler): LeafHandler {
  return (module, lp, version) => {
    const held = new Held();
    try {
      return run(module, lp, held, version);
    } finally {
      held.release();
    }
  };
}
