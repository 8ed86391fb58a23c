/** The table of host leaves, indexed by leaf number. A leaf that is not here answers as one the ABI lacks. */
import type { Leaf } from './leaf.ts';
import { sysInit } from './leaves/sys-init.ts';
import { sysLpInit } from './leaves/sys-lp-init.ts';

const LEAVES: readonly (readonly [number: number, leaf: Leaf])[] = [
  [33, sysInit],
  [35, sysLpInit],
];

/** @internal */
export const HOST_LEAVES: readonly (Leaf | undefined)[] = (() => {
  const table: (Leaf | undefined)[] = [];
  for (const [number, leaf] of LEAVES) table[number] = leaf;
  return table;
})();
