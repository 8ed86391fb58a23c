/** Memory policies by page of a file, which every mapping of it shares. */
import type { MemoryPolicy } from './mempolicy.ts';

interface PolicyRange {
  readonly start: number;
  readonly end: number;
  readonly policy: MemoryPolicy;
}

/** @public */
export class SharedPolicy {
  #ranges: readonly PolicyRange[] = [];

  /** Sets the policy of pages [start, end); null is the default one. */
  set(start: number, end: number, policy: MemoryPolicy | null): void {
    const kept = this.#ranges.flatMap((range) =>
      [
        { ...range, end: Math.min(range.end, start) },
        { ...range, start: Math.max(range.start, end) },
      ].filter((piece) => piece.start < piece.end),
    );
    this.#ranges = policy === null ? kept : [...kept, { start, end, policy }];
  }

  get(index: number): MemoryPolicy | null {
    if (this.#ranges.length === 0) return null;
    return this.#ranges.find(({ start, end }) => start <= index && index < end)?.policy ?? null;
  }
}
