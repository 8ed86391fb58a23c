import type { AddressRange } from '../../abi/address.ts';

/** Finds the range that holds an address, for addresses asked in ascending order over ascending ranges. @internal */
export class RangeCursor<T extends AddressRange> {
  readonly #ranges: readonly T[];
  #next = 0;

  constructor(ranges: readonly T[]) {
    this.#ranges = ranges;
  }

  at(address: number): T | undefined {
    while (this.#next < this.#ranges.length && this.#ranges[this.#next]!.end <= address) this.#next++;
    const range = this.#ranges[this.#next];
    return range !== undefined && range.start <= address ? range : undefined;
  }
}
