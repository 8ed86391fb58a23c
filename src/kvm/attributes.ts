/** Memory attributes of a VM: a value per guest frame, 0 unless set. */
import { KVM_MEMORY_ATTRIBUTE_PRIVATE } from '../abi/kvm/structs.ts';
import { RangeMap } from './range-map.ts';

/** @public */
export class MemoryAttributes {
  readonly #values = new RangeMap<bigint>();

  /** Attributes of a frame. */
  get(gfn: number): bigint {
    return this.#values.get(gfn) ?? 0n;
  }

  isPrivate(gfn: number): boolean {
    return (this.get(gfn) & KVM_MEMORY_ATTRIBUTE_PRIVATE) !== 0n;
  }

  /** True when every frame of [startGfn, endGfn) has `value`. */
  isUniform(startGfn: number, endGfn: number, value: bigint): boolean {
    return this.#values.isUniform(startGfn, endGfn, value === 0n ? undefined : value);
  }

  /** Gives [startGfn, endGfn) the attributes `value`. */
  set(startGfn: number, endGfn: number, value: bigint): void {
    this.#values.set(startGfn, endGfn, value === 0n ? undefined : value);
  }

  /** Ranges of neighbours with the same attributes other than 0. */
  get rangeCount(): number {
    return this.#values.size;
  }
}
