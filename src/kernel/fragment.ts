/** Fragmentation on purpose: what months of uptime do to memory, in one call. */
import { EntropySource } from '../machine/random.ts';
import { MAX_ORDER, type PageAllocator } from './allocator.ts';

/** @public */
export interface FragmentOptions {
  /** Only this node; default all. */
  readonly node?: number;
  /** Share of the wholly free 4 MiB blocks that get a pinned page, 0 to 1. */
  readonly share: number;
  readonly seed: bigint;
}

/**
 * Pins one unmovable page at a random place in a share of the free 4 MiB blocks: nearly all memory stays free,
 * yet large contiguous allocations fail. Returns the pinned page frames, for whoever wants to free them again.
 * @public
 */
export function fragment(allocator: PageAllocator, options: FragmentOptions): readonly number[] {
  const entropy = new EntropySource(options.seed);
  const pinned: number[] = [];
  const draw = (): number => Number(entropy.next64()! >> 11n) / 2 ** 53;
  for (const node of options.node === undefined ? allocator.nodes : [options.node]) {
    for (const first of allocator.wholeFreeBlocks(node)) {
      if (draw() >= options.share) continue;
      const pfn = first + Math.floor(draw() * 2 ** MAX_ORDER);
      allocator.takePage(pfn);
      pinned.push(pfn);
    }
  }
  return pinned;
}
