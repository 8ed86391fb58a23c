/** The table of host leaves, indexed by leaf number. A leaf that is not here answers as one the ABI lacks. */
import type { Leaf } from './leaf.ts';

const LEAVES: readonly (readonly [number: number, leaf: Leaf])[] = [];

/** @internal */
export const HOST_LEAVES: readonly (Leaf | undefined)[] = (() => {
  const table: (Leaf | undefined)[] = [];
  for (const [number, leaf] of LEAVES) table[number] = leaf;
  return table;
})();
