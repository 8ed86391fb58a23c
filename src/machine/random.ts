/**
 * The machine's only source of randomness (RDRAND, RDSEED): a seeded xorshift64 with shifts 13, 7, 17.
 * The same generator and seed reproduce recorded platforms.
 */
const MASK = 0xffff_ffff_ffff_ffffn;

/** @public */
export class EntropySource {
  #state: bigint;
  /** Values delivered so far. */
  drawn = 0;
  /** While true the instruction delivers nothing (CF = 0). */
  exhausted = false;

  constructor(seed: bigint) {
    // xorshift has the fixed point 0, so a zero seed is moved off it.
    this.#state = (seed & MASK) === 0n ? 0x9e37_79b9_7f4a_7c15n : seed & MASK;
  }

  /** Next 64-bit value, or undefined while exhausted. */
  next64(): bigint | undefined {
    if (this.exhausted) return undefined;
    let s = this.#state;
    s ^= (s << 13n) & MASK;
    s ^= s >> 7n;
    s ^= (s << 17n) & MASK;
    this.#state = s;
    this.drawn++;
    return s;
  }

  /** State for a saved machine. */
  save() {
    return { state: this.#state, drawn: this.drawn };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<EntropySource['save']>): void {
    this.#state = saved.state;
    this.drawn = saved.drawn;
  }
}
