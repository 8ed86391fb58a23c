/** Memory blocks, the unit in which memory goes online and offline, and how much of each is TDX memory. */
import { type AddressRange, alignDown, formatRange, GIB, MIB, overlaps, PAGE_4K } from '../abi/address.ts';
import type { Reason } from '../abi/errno.ts';
import { intersect, subtract } from '../abi/ranges.ts';
import type { ZoneAccount } from './allocation.ts';
import type { MemoryHotplug } from './hotplug.ts';
import type { TdxMemoryBlock } from './memlist.ts';
import type { Tdmr } from './tdmr.ts';
import type { ZoneName } from './zone.ts';

/** @public */
export type MemoryBlockState = 'present' | 'online' | 'offline' | 'removed';

/** @public */
export interface MemoryBlock extends AddressRange {
  /** Number in `/sys/devices/system/memory/memoryN`. */
  readonly index: number;
  readonly node: number;
  /** `present`: it is there and no System RAM, a device's or refused; `removed`: it was, and is no longer there. */
  readonly state: MemoryBlockState;
  /** Zones that have memory of it, in the order of allocation; none while it is not online. */
  readonly zones: readonly ZoneName[];
  /** Memory in the block: System RAM, or what could become it. */
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

/** What blocks are made of. @public */
export interface MemoryBlockFacts {
  readonly hotplug: Pick<
    MemoryHotplug,
    'memblock' | 'offline' | 'removed' | 'idle' | 'refused' | 'blockSize'
  >;
  readonly zones: readonly ZoneAccount[];
  /** Memory TDs can use. */
  readonly tdx: readonly AddressRange[];
  /** Why TDX is off; null when it is on. */
  readonly off: Reason | null;
}

/** Every block that has memory, or had it; while TDX is off no block is capable, and `off` says why. @public */
export function memoryBlocks({ hotplug, zones, tdx, off }: MemoryBlockFacts): readonly MemoryBlock[] {
  const { blockSize, refused } = hotplug;
  const sources: readonly (readonly [MemoryBlockState, readonly Located[]])[] = [
    ['online', hotplug.memblock.filter(({ kind }) => kind === 'ram')],
    ['offline', hotplug.offline],
    ['present', hotplug.idle],
    ['removed', hotplug.removed],
  ];
  const there = sources.flatMap(([state, regions]) => (state === 'removed' ? [] : regions));
  const presentBytes = bytesPerBlock(there, blockSize);
  const above1M = there.map(({ start, end }) => ({ start: Math.max(start, MIB), end }));
  const countableBytes = bytesPerBlock(above1M, blockSize);
  const tdxBytes = bytesPerBlock(intersect(tdx, there), blockSize);
  const zoneNames = zonesPerBlock(zones, blockSize);
  const blocks = new Map<number, MemoryBlock>();
  for (const [state, regions] of sources) {
    for (const region of regions) {
      for (const start of bytesPerBlock([region], blockSize).keys()) {
        if (blocks.has(start)) continue;
        const block = { start, end: start + blockSize };
        const usable = tdxBytes.get(start) ?? 0;
        const refusal = refused.find(({ range }) => overlaps(range, block))?.why;
        const why =
          state === 'removed'
            ? {
                code: 'memory-removed',
                text: `memory block ${formatRange(block)} is no longer there`,
                data: {},
              }
            : (refusal ?? off ?? whyNot(block, usable, countableBytes.get(start) ?? 0));
        blocks.set(start, {
          ...block,
          index: start / blockSize,
          node: region.node,
          state,
          zones: zoneNames.get(start) ?? [],
          presentBytes: presentBytes.get(start) ?? 0,
          tdxBytes: usable,
          tdxCapable: why === null,
          why,
        });
      }
    }
  }
  return [...blocks.values()].sort((a, b) => a.index - b.index);
}

type Located = AddressRange & { readonly node: number };

function zonesPerBlock(
  zones: readonly ZoneAccount[],
  blockSize: number,
): ReadonlyMap<number, readonly ZoneName[]> {
  const names = new Map<number, ZoneName[]>();
  for (const { name, present } of zones) {
    const ranges = present.map(({ startPfn, endPfn }) => ({
      start: startPfn * PAGE_4K,
      end: endPfn * PAGE_4K,
    }));
    for (const start of bytesPerBlock(ranges, blockSize).keys()) {
      names.set(start, [...(names.get(start) ?? []), name]);
    }
  }
  return names;
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
