/** The locks that a leaf holds while it runs. */
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { LeafHandler } from '../leaf.ts';
import type { TdxModule } from '../tdx-module.ts';

/** Something that is locked until it is released. @public */
export interface Releasable {
  release(): void;
}

/** Locks taken so far; released together, the last one first. @public */
export class Held {
  #locks: Releasable[] = [];

  /** Holds `lock` until the leaf ends. */
  add<T extends Releasable>(lock: T): T {
    this.#locks.push(lock);
    return lock;
  }

  /** Releases one lock before the leaf ends. */
  drop(lock: Releasable): void {
    this.#locks = this.#locks.filter((other) => other !== lock);
    lock.release();
  }

  /** Keeps everything locked beyond the leaf's end; the caller takes charge of the locks. */
  take(): readonly Releasable[] {
    const taken = this.#locks;
    this.#locks = [];
    return taken;
  }

  release(): void {
    releaseAll(this.take());
  }
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
