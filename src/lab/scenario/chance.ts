/** Random numbers of a scenario: one stream for each thing that is drawn, so that leaving one out changes no other. */

/** @internal */
export class Chance {
  #state: number;

  constructor(seed: number, stream: string) {
    this.#state = hash(`${seed}/${stream}`);
  }

  /** A number from 0 to below 1 (mulberry32, 32 bits). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
}

/** FNV-1a, 32 bits. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (const character of text) h = Math.imul(h ^ character.codePointAt(0)!, 0x01000193);
  return h | 0;
}
