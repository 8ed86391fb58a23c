import { REGISTER_NAMES } from '../../abi/registers.ts';

const REGISTERS = REGISTER_NAMES.length;
const SNAPSHOTS_IN_BLOCK = 1024;

/** Copies register files. Copies share blocks of memory: a typed array of its own would be allocated outside the heap. @internal */
export class RegisterSnapshots {
  #block = new BigUint64Array(0);
  #used = 0;

  /** A copy of the sixteen registers in `q`. */
  take(q: BigUint64Array): BigUint64Array {
    if (this.#used === this.#block.length) {
      this.#block = new BigUint64Array(SNAPSHOTS_IN_BLOCK * REGISTERS);
      this.#used = 0;
    }
    const snapshot = this.#block.subarray(this.#used, this.#used + REGISTERS);
    this.#used += REGISTERS;
    snapshot.set(q);
    return snapshot;
  }
}
