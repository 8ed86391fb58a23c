/** States that were visited, each kept whole: two states are the same only when every number is. */

const FIRST_STATES = 1 << 12;

/** States by their numbers from 0, in the order in which they were added. @internal */
export class StateSet {
  /** States kept. */
  count = 0;
  readonly #width: number;
  #states: Int32Array;
  /** State number + 1 by hash, open addressing; at most half full. */
  #slots: Int32Array;
  #hashes: Int32Array;

  constructor(width: number) {
    this.#width = width;
    this.#states = new Int32Array(FIRST_STATES * width);
    this.#slots = new Int32Array(2 * FIRST_STATES);
    this.#hashes = new Int32Array(FIRST_STATES);
  }

  /** Keeps a copy of `state`; returns its number, or -1 when it is known. */
  add(state: Int32Array): number {
    const hash = hashOf(state);
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    for (let known = this.#slots[slot]!; known !== 0; known = this.#slots[slot]!) {
      if (this.#hashes[known - 1] === hash && this.#isSame(known - 1, state)) return -1;
      slot = (slot + 1) & mask;
    }
    const number = this.count++;
    if (this.count * this.#width > this.#states.length) this.#growStates();
    this.#states.set(state, number * this.#width);
    this.#hashes[number] = hash;
    this.#slots[slot] = this.count;
    if (2 * this.count > this.#slots.length) this.#growSlots();
    return number;
  }

  /** Copies state `number` to `into`. */
  read(number: number, into: Int32Array): void {
    const from = number * this.#width;
    for (let i = 0; i < this.#width; i++) into[i] = this.#states[from + i]!;
  }

  #isSame(number: number, state: Int32Array): boolean {
    const from = number * this.#width;
    for (let i = 0; i < this.#width; i++) if (this.#states[from + i] !== state[i]) return false;
    return true;
  }

  #growStates(): void {
    const states = new Int32Array(2 * this.#states.length);
    states.set(this.#states);
    this.#states = states;
    const hashes = new Int32Array(2 * this.#hashes.length);
    hashes.set(this.#hashes);
    this.#hashes = hashes;
  }

  #growSlots(): void {
    this.#slots = new Int32Array(2 * this.#slots.length);
    const mask = this.#slots.length - 1;
    for (let number = 0; number < this.count; number++) {
      let slot = this.#hashes[number]! & mask;
      while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
      this.#slots[slot] = number + 1;
    }
  }
}

/** FNV-1a over 32-bit numbers, mixed at the end (murmur3's finisher). */
function hashOf(state: Int32Array): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < state.length; i++) {
    h = Math.imul(h ^ state[i]!, 0x01000193);
    h ^= h >>> 15;
  }
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
