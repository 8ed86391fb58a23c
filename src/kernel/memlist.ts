/** The TDX memory list: the memory a TD may be made of, fixed when the module is configured. */
import { alignDown, MIB, PAGE_4K } from '../abi/address.ts';
import type { MemblockRegion } from './memblock.ts';
import type { KernelPolicy } from './policy.ts';

/** A run of TDX memory of one node, in page frame numbers. @public */
export interface TdxMemoryBlock {
  readonly startPfn: number;
  readonly endPfn: number;
  readonly node: number;
}

/** Memory below 1 MiB is never TDX memory: CMRs do not hold it (Linux host rules 1.3d). */
const FIRST_PFN = MIB / PAGE_4K;

/**
 * All memory of the page allocator from 1 MiB up, ascending and disjoint; with `legacyPmem` also legacy
 * persistent memory.
 * @public
 */
export function buildTdxMemlist(
  memblock: readonly MemblockRegion[],
  policy: Pick<KernelPolicy, 'legacyPmem'>,
): readonly TdxMemoryBlock[] {
  return memblock
    .filter((region) => region.kind === 'ram' || policy.legacyPmem)
    .map(({ start, end, node }) => ({
      startPfn: Math.max(start / PAGE_4K, FIRST_PFN),
      endPfn: alignDown(end, PAGE_4K) / PAGE_4K,
      node,
    }))
    .filter(({ startPfn, endPfn }) => startPfn < endPfn);
}
