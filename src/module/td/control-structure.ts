/**
 * A control structure of a TD (TDR, TDCS, TDVPS) where it really is: in private pages of the machine's memory, read
 * and written in place under the structure's KeyID. Offsets are bytes from the start of the structure, numbers
 * are little-endian.
 */
import { offsetIn, PAGE_4K, pfnOf } from '../../abi/address.ts';
import type { FrameStore } from '../../machine/frames.ts';
import { isMapped, type PageMapping, type PhysicalMemory } from '../../machine/memory.ts';
import { type LockMode, releaseHpLock, tryHpLock } from '../locks.ts';

const TWO_32 = 0x1_0000_0000;
/** Offsets in a structure are far below 2^31. */
const PAGE_SHIFT = 12;

/** @public */
export class ControlStructure {
  readonly keyId: number;
  readonly #memory: PhysicalMemory;
  readonly #frames: FrameStore;
  readonly #pfns: readonly number[];
  readonly #mappings: (PageMapping | undefined)[];

  /** `pages` are the addresses of the structure's pages in their order. */
  constructor(memory: PhysicalMemory, keyId: number, pages: readonly number[]) {
    this.keyId = keyId;
    this.#memory = memory;
    this.#frames = memory.frames;
    this.#pfns = pages.map(pfnOf);
    this.#mappings = this.#pfns.map(() => undefined);
  }

  /** Pages the structure has so far. */
  get pageCount(): number {
    return this.#pfns.length;
  }

  u8(offset: number): number {
    return this.#frames.bytes[this.#at(offset)]!;
  }

  setU8(offset: number, value: number): void {
    const at = this.#at(offset);
    this.#frames.bytes[at] = value;
  }

  u16(offset: number): number {
    const at = this.#at(offset);
    return this.#frames.view.getUint16(at, true);
  }

  setU16(offset: number, value: number): void {
    const at = this.#at(offset);
    this.#frames.view.setUint16(at, value, true);
  }

  u32(offset: number): number {
    const at = this.#at(offset);
    return this.#frames.view.getUint32(at, true);
  }

  setU32(offset: number, value: number): void {
    const at = this.#at(offset);
    this.#frames.view.setUint32(at, value, true);
  }

  u64(offset: number): bigint {
    const at = this.#at(offset);
    return this.#frames.view.getBigUint64(at, true);
  }

  setU64(offset: number, value: bigint): void {
    const at = this.#at(offset);
    this.#frames.view.setBigUint64(at, value, true);
  }

  /** A 64-bit field that is known to stay below 2^53: addresses, counts. */
  n64(offset: number): number {
    const at = this.#at(offset);
    const { view } = this.#frames;
    return view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
  }

  setN64(offset: number, value: number): void {
    const at = this.#at(offset);
    const { view } = this.#frames;
    // Storing keeps the low 32 bits.
    view.setUint32(at, value, true);
    view.setUint32(at + 4, value / TWO_32, true);
  }

  /** The `bytes` bytes at `offset` as a number: 1, 2, 4 or 8. */
  element(offset: number, bytes: number): bigint {
    if (bytes === 8) return this.u64(offset);
    return BigInt(bytes === 4 ? this.u32(offset) : bytes === 2 ? this.u16(offset) : this.u8(offset));
  }

  setElement(offset: number, bytes: number, value: bigint): void {
    if (bytes === 8) this.setU64(offset, value);
    else if (bytes === 4) this.setU32(offset, Number(value));
    else if (bytes === 2) this.setU16(offset, Number(value));
    else this.setU8(offset, Number(value));
  }

  /** True unless the byte at `offset` is zero. */
  flag(offset: number): boolean {
    return this.u8(offset) !== 0;
  }

  setFlag(offset: number, value: boolean): void {
    this.setU8(offset, value ? 1 : 0);
  }

  /** A copy of `length` bytes that lie in one page. */
  bytes(offset: number, length: number): Uint8Array {
    const at = this.#at(offset);
    return this.#frames.bytes.slice(at, at + length);
  }

  /** Stores bytes that lie in one page. */
  setBytes(offset: number, bytes: Uint8Array): void {
    const at = this.#at(offset);
    this.#frames.bytes.set(bytes, at);
  }

  /** Tries the host-priority lock at `offset`: TDX_SUCCESS, TDX_OPERAND_BUSY or TDX_OPERAND_BUSY_HOST_PRIORITY. */
  tryLock(offset: number, mode: LockMode, guest = false): bigint {
    const at = this.#at(offset);
    return tryHpLock(this.#frames.words16, at / 2, mode, guest);
  }

  unlock(offset: number, mode: LockMode): void {
    const at = this.#at(offset);
    releaseHpLock(this.#frames.words16, at / 2, mode);
  }

  #at(offset: number): number {
    const index = offset >>> PAGE_SHIFT;
    const known = this.#mappings[index];
    const page = known !== undefined && isMapped(known, this.keyId) ? known : this.#map(index);
    return page.frame + offsetIn(offset, PAGE_4K);
  }

  #map(index: number): PageMapping {
    const pfn = this.#pfns[index];
    if (pfn === undefined) throw new Error(`control structure has no page ${index}`);
    const page = this.#memory.map(pfn, this.keyId);
    this.#mappings[index] = page;
    return page;
  }
}
