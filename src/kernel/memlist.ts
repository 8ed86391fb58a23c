/** The TDX memory list: the memory a TD may be made of, fixed when the module is configured. */
import { type AddressRange, alignDown, MIB, PAGE_4K } from '../abi/address.ts';
import type { SratEntry } from '../machine/description.ts';
import { assignNodes, type MemblockRegion } from './memblock.ts';
import type { KernelPolicy } from './policy/kernel-policy.ts';

/** A run of TDX memory of one node, in page frame numbers. @public */
export interface TdxMemoryBlock {
  readonly startPfn: number;
  readonly endPfn: number;
  readonly node: number;
}

/** What a memory list can be built of. @public */
export interface MemlistSources {
  /** Memory of the page allocator, and legacy persistent memory. */
  readonly memblock: readonly MemblockRegion[];
  /** As the module reports them. */
  readonly cmrs: readonly AddressRange[];
  /** Tells the nodes of memory that is not there yet. */
  readonly srat: readonly SratEntry[];
}

/** Memory below 1 MiB is never TDX memory: CMRs do not hold it (Linux host rules 1.3d). */
const FIRST_PFN = MIB / PAGE_4K;

/** The memory that the knob `tdxMemory` chooses, from 1 MiB up, ascending and disjoint. @public */
export function buildTdxMemlist(
  sources: MemlistSources,
  policy: Pick<KernelPolicy, 'tdxMemory' | 'tdxNodes'>,
): readonly TdxMemoryBlock[] {
  return CHOSEN[policy.tdxMemory](sources, policy.tdxNodes)
    .map(({ start, end, node }) => ({
      startPfn: Math.max(start / PAGE_4K, FIRST_PFN),
      endPfn: alignDown(end, PAGE_4K) / PAGE_4K,
      node,
    }))
    .filter(({ startPfn, endPfn }) => startPfn < endPfn);
}

const CHOSEN: {
  readonly [K in KernelPolicy['tdxMemory']]: (
    sources: MemlistSources,
    nodes: readonly number[],
  ) => readonly MemblockRegion[];
} = {
  'boot-ram': ({ memblock }) => memblock.filter(({ kind }) => kind === 'ram'),
  'boot-ram-and-pmem': ({ memblock }) => memblock,
  cmr: ({ cmrs, srat }) => assignNodes(cmrs, srat),
  nodes: ({ memblock }, nodes) => memblock.filter(({ kind, node }) => kind === 'ram' && nodes.includes(node)),
};
