/** The chain of listeners that may refuse memory going online (Linux host rules 1.8). */
import type { AddressRange } from '../abi/address.ts';
import { type ErrnoName, KernelError } from '../abi/errno.ts';

/** Called before memory goes online; throws KernelError to refuse. @public */
export type GoingOnline = (range: AddressRange) => void;

/** @public */
export class MemoryNotifiers {
  /** Fault point: the errno with which the next registrations fail. */
  fault: ErrnoName | null = null;
  readonly #chain: GoingOnline[] = [];

  /** Listeners registered. */
  get count(): number {
    return this.#chain.length;
  }

  /** Throws the errno of `fault`. */
  register(listener: GoingOnline): void {
    if (this.fault !== null) {
      throw new KernelError(
        this.fault,
        'memory-notifier',
        'the memory hot-plug notifier could not be registered',
      );
    }
    this.#chain.push(listener);
  }

  /** Asks every listener. Throws what the first refusal throws. */
  goingOnline(range: AddressRange): void {
    for (const listener of this.#chain) listener(range);
  }
}
