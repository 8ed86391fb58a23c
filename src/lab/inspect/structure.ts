/**
 * A look at a control structure of a TD that changes nothing: unlike the module's own access it makes no page for
 * what was never written. Offsets are the module's.
 */
import { PAGE_4K } from '../../abi/address.ts';
import type { PhysicalMemory } from '../../machine/memory.ts';

/** @internal */
export class StructureView {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  /** `pages` are the structure's addresses in their order. Throws MachineCheck where a page is not the KeyID's. */
  constructor(memory: PhysicalMemory, keyId: number, pages: readonly number[]) {
    this.#bytes = new Uint8Array(pages.length * PAGE_4K);
    this.#view = new DataView(this.#bytes.buffer);
    for (const [i, page] of pages.entries()) this.#bytes.set(memory.read(page, PAGE_4K, keyId), i * PAGE_4K);
  }

  u8(offset: number): number {
    return this.#view.getUint8(offset);
  }

  u16(offset: number): number {
    return this.#view.getUint16(offset, true);
  }

  u32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  u64(offset: number): bigint {
    return this.#view.getBigUint64(offset, true);
  }

  /** An address without the KeyID in the bits from `keyIdStartBit` on. */
  address(offset: number, keyIdStartBit: number): number {
    return Number(this.u64(offset) & ((1n << BigInt(keyIdStartBit)) - 1n));
  }

  bytes(offset: number, length: number): Uint8Array {
    return this.#bytes.slice(offset, offset + length);
  }
}
