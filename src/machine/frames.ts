/**
 * Storage of page contents: 4 KiB frames in WebAssembly memory, so that a guest core compiled to WebAssembly
 * and the host see the same bytes without a copy. Frames are handed out on first write and recycled.
 */
import { PAGE_4K } from '../abi/address.ts';

const WASM_PAGE = 65536;
const FRAMES_PER_WASM_PAGE = WASM_PAGE / PAGE_4K;
/** Frames per growth step: 4 MiB, so that growing is rare and little is wasted. */
const GROWTH_WASM_PAGES = 64;
const MAX_WASM_PAGES = 65536;

/** @public */
export class FrameStore {
  readonly memory = new WebAssembly.Memory({ initial: GROWTH_WASM_PAGES, maximum: MAX_WASM_PAGES });
  /** Byte view of the whole store; replaced when the store grows, so never keep it across an allocation. */
  bytes = new Uint8Array(this.memory.buffer);
  /** The same bytes as 16- and 32-bit words and as a view, under the same rule. */
  words16 = new Uint16Array(this.memory.buffer);
  words32 = new Uint32Array(this.memory.buffer);
  view = new DataView(this.memory.buffer);
  #next = 0;
  #limit = GROWTH_WASM_PAGES * FRAMES_PER_WASM_PAGE;
  readonly #free: number[] = [];

  /** Byte offset of a zeroed frame. Throws when 4 GiB of distinct pages are in use. */
  allocate(): number {
    const recycled = this.#free.pop();
    if (recycled === undefined) return this.#fresh();
    this.bytes.fill(0, recycled, recycled + PAGE_4K);
    return recycled;
  }

  /** `allocate` for those who fill all of the frame: it holds anything. */
  allocateUnset(): number {
    return this.#free.pop() ?? this.#fresh();
  }

  release(offset: number): void {
    this.#free.push(offset);
  }

  #fresh(): number {
    if (this.#next === this.#limit) this.#grow();
    return this.#next++ * PAGE_4K;
  }

  #grow(): void {
    if (this.#limit / FRAMES_PER_WASM_PAGE >= MAX_WASM_PAGES) {
      throw new Error('more than 4 GiB of simulated memory contents are in use');
    }
    this.memory.grow(GROWTH_WASM_PAGES);
    this.bytes = new Uint8Array(this.memory.buffer);
    this.words16 = new Uint16Array(this.memory.buffer);
    this.words32 = new Uint32Array(this.memory.buffer);
    this.view = new DataView(this.memory.buffer);
    this.#limit += GROWTH_WASM_PAGES * FRAMES_PER_WASM_PAGE;
  }
}
