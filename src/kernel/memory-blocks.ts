/** Memory blocks, the unit in which memory goes online and offline, and how much of each is TDX memory. */
import { type AddressRange, alignDown, formatRange, GIB, MIB, PAGE_4K } from '../abi/address.ts';
import type { Reason } from '../abi/errno.ts';
import { intersect, subtract } from '../abi/ranges.ts';
import type { MemblockRegion } from './memblock.ts';
import type { TdxMemoryBlock } from './memlist.ts';
import type { Tdmr } from './tdmr.ts';

/** @public */
export interface MemoryBlock extends AddressRange {
  /** Number in `/sys/devices/system/memory/memoryN`. */
  readonly index: number;
  readonly node: number;
  readonly state: 'online' | 'offline';
  /** System RAM in the block. */
  readonly presentBytes: number;
  /** Of it, memory TDs can use. */
  readonly tdxBytes: number;
  /** All its System RAM is TDX memory; RAM below 1 MiB does not count. */
  readonly tdxCapable: boolean;
  /** Why not; null when capable. */
  readonly why: Reason | null;
}

const SMALL_BLOCK = 128 * MIB;
const LARGE_BLOCK = 2 * GIB;
/** From this size on a bare-metal machine uses large blocks. */
const LARGE_MEMORY = 64 * GIB;

/** Bytes of a memory block on bare metal, from the end of memory at boot. @public */
export function memoryBlockSize(endOfMemory: number): number {
  return endOfMemory < LARGE_MEMORY ? SMALL_BLOCK : LARGE_BLOCK;
}

/** The TDX memory less what a TDMR reserves as a hole, with the node of each range. @public */
export function usableMemory(
  memlist: readonly TdxMemoryBlock[],
  tdmrs: readonly Tdmr[],
): readonly (AddressRange & { readonly node: number })[] {
  const holes = tdmrs.flatMap(({ reservedAreas }) => reservedAreas.filter(({ why }) => why === 'hole'));
  return memlist.flatMap(({ startPfn, endPfn, node }) => {
    const block = { start: startPfn * PAGE_4K, end: endPfn * PAGE_4K };
    return subtract([block], holes).map((range) => ({ ...range, node }));
  });
}

/**
 * Every block that has System RAM. `tdx` is the memory TDs can use; while TDX is not initialised no block is
 * capable, and `tdxOff` says why.
 * @public
 */
export function memoryBlocks(
  memblock: readonly MemblockRegion[],
  offline: readonly MemblockRegion[],
  blockSize: number,
  tdx: readonly AddressRange[],
  tdxOff: Reason | null,
): readonly MemoryBlock[] {
  const online = memblock.filter(({ kind }) => kind === 'ram');
  const ram = [...online, ...offline];
  const presentBytes = bytesPerBlock(ram, blockSize);
  const above1M = ram.map(({ start, end }) => ({ start: Math.max(start, MIB), end }));
  const countableBytes = bytesPerBlock(above1M, blockSize);
  const tdxBytes = bytesPerBlock(intersect(tdx, ram), blockSize);
  const blocks = new Map<number, MemoryBlock>();
  for (const region of ram) {
    for (const start of bytesPerBlock([region], blockSize).keys()) {
      if (blocks.has(start)) continue;
      const block = { start, end: start + blockSize };
      const why = tdxOff ?? whyNot(block, tdxBytes.get(start) ?? 0, countableBytes.get(start) ?? 0);
      blocks.set(start, {
        ...block,
        index: start / blockSize,
        node: region.node,
        state: online.includes(region) ? 'online' : 'offline',
        presentBytes: presentBytes.get(start)!,
        tdxBytes: tdxBytes.get(start) ?? 0,
        tdxCapable: why === null,
        why,
      });
    }
  }
  return [...blocks.values()].sort((a, b) => a.index - b.index);
}

function whyNot(block: AddressRange, tdxBytes: number, countableBytes: number): Reason | null {
  if (tdxBytes >= countableBytes) return null;
  const data = { range: block, tdxBytes, presentBytes: countableBytes };
  return tdxBytes === 0
    ? {
        code: 'outside-tdx-memory',
        text: `memory block ${formatRange(block)} is no TDX memory: it was not there when TDX was initialised, or no CMR holds it`,
        data,
      }
    : {
        code: 'partly-tdx-memory',
        text: `only a part of memory block ${formatRange(block)} is TDX memory`,
        data,
      };
}

/** Bytes of `ranges` in each block, by the block's start. */
function bytesPerBlock(ranges: readonly AddressRange[], blockSize: number): ReadonlyMap<number, number> {
  const bytes = new Map<number, number>();
  for (const { start, end } of ranges) {
    for (let at = start; at < end; ) {
      const block = alignDown(at, blockSize);
      const next = Math.min(block + blockSize, end);
      bytes.set(block, (bytes.get(block) ?? 0) + next - at);
      at = next;
    }
  }
  return bytes;
}
