/** TDMRs as the module keeps them after SYS.CONFIG. */
import { type AddressRange, alignDown, PAGE_1G } from '../abi/address.ts';
import { MutexLock } from './locks.ts';

/** One TD memory region; addresses in bytes. @public */
export class Tdmr {
  readonly lock = new MutexLock();
  readonly base: number;
  readonly size: number;
  readonly pamt1gBase: number;
  readonly pamt2mBase: number;
  /** With dynamic PAMT the base of the bitmap of lent pages. */
  readonly pamt4kBase: number;
  /** Reserved areas as physical ranges, ascending. */
  readonly reserved: readonly AddressRange[];
  /** First address whose page metadata is not initialised. */
  nextToInit: number;

  constructor(
    base: number,
    size: number,
    pamt: { readonly base1g: number; readonly base2m: number; readonly base4k: number },
    reserved: readonly AddressRange[],
    nextToInit = base,
  ) {
    this.base = base;
    this.size = size;
    this.pamt1gBase = pamt.base1g;
    this.pamt2mBase = pamt.base2m;
    this.pamt4kBase = pamt.base4k;
    this.reserved = reserved;
    this.nextToInit = nextToInit;
  }

  get end(): number {
    return this.base + this.size;
  }

  /** End of the part whose 1 GiB blocks are completely initialised and so usable. */
  get usableEnd(): number {
    return alignDown(this.nextToInit, PAGE_1G);
  }

  /** State for a saved machine. */
  save() {
    const { base, size, pamt1gBase, pamt2mBase, pamt4kBase, reserved, nextToInit, lock } = this;
    return { base, size, pamt1gBase, pamt2mBase, pamt4kBase, reserved, nextToInit, lock: lock.word };
  }

  /** The TDMR that `save` was called on, again. */
  static restored(saved: ReturnType<Tdmr['save']>): Tdmr {
    const { base, size, pamt1gBase, pamt2mBase, pamt4kBase, reserved, nextToInit, lock } = saved;
    const pamt = { base1g: pamt1gBase, base2m: pamt2mBase, base4k: pamt4kBase };
    const tdmr = new Tdmr(base, size, pamt, reserved, nextToInit);
    tdmr.lock.word = lock;
    return tdmr;
  }
}

/** The TDMR that holds `address`, of a table ascending by base. @public */
export function tdmrAt(tdmrs: readonly Tdmr[], address: number): Tdmr | undefined {
  let low = 0;
  let high = tdmrs.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (tdmrs[middle]!.end > address) high = middle;
    else low = middle + 1;
  }
  const tdmr = tdmrs[low];
  return tdmr !== undefined && tdmr.base <= address ? tdmr : undefined;
}
