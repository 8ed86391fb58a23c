/** ASIDs of encrypted guests. One that was given up is free again only after a flush, which is done for many at once. */
import { KernelError } from '../../../abi/errno.ts';

/** @public */
export class AsidPool {
  readonly #first: number;
  readonly #end: number;
  /** Taken, or given up and not flushed. */
  readonly #taken = new Set<number>();
  readonly #givenUp = new Set<number>();
  /** Flushes caches and the firmware's ASIDs; false when the firmware refused. */
  readonly #flush: () => boolean;

  /** ASIDs [first, end). */
  constructor(first: number, end: number, flush: () => boolean) {
    this.#first = first;
    this.#end = end;
    this.#flush = flush;
  }

  get capacity(): number {
    return this.#end - this.#first;
  }

  /** ASIDs that guests have. */
  get inUse(): number {
    return this.#taken.size - this.#givenUp.size;
  }

  /** The lowest free ASID. Throws EBUSY when all are taken. */
  allocate(): number {
    const asid = this.#lowestFree() ?? (this.#recycle() ? this.#lowestFree() : undefined);
    if (asid === undefined) {
      throw new KernelError(
        'EBUSY',
        'asids-exhausted',
        `all ${this.capacity} ASIDs for SNP guests are in use`,
        {
          capacity: this.capacity,
        },
      );
    }
    this.#taken.add(asid);
    return asid;
  }

  free(asid: number): void {
    if (!this.#taken.has(asid) || this.#givenUp.has(asid)) throw new Error(`ASID ${asid} is not in use`);
    this.#givenUp.add(asid);
  }

  #lowestFree(): number | undefined {
    for (let asid = this.#first; asid < this.#end; asid++) if (!this.#taken.has(asid)) return asid;
    return undefined;
  }

  #recycle(): boolean {
    if (this.#givenUp.size === 0 || !this.#flush()) return false;
    for (const asid of this.#givenUp) this.#taken.delete(asid);
    this.#givenUp.clear();
    return true;
  }
}
