/** The kernel's list of physical memory, from the firmware's memory map and the SRAT. */
import { type AddressRange, alignDown, alignUp, MIB, overlaps, PAGE_4K } from '../abi/address.ts';
import { subtract } from '../abi/ranges.ts';
import type { E820Entry, SratEntry } from '../machine/description.ts';

/** How memory came after boot: `acpi` hot-plugged, `kmem` bound by dax/kmem, which manages it. @public */
export type MemorySource = 'acpi' | 'kmem';

/** A run of memory of one node, kind and source, in whole pages. @public */
export interface MemblockRegion extends AddressRange {
  readonly node: number;
  /** Only `ram` goes to the page allocator. */
  readonly kind: 'ram' | 'legacy-pmem';
  /** Absent for memory of the firmware's map. */
  readonly source?: MemorySource;
}

/** Memory the SRAT may leave uncovered before the kernel distrusts it and takes everything for node 0. */
const MAX_UNCOVERED = MIB;

/**
 * Memory regions in ascending order: usable memory and legacy persistent memory, each page whole, each region on
 * one node, adjacent equals merged. Where entries of different type overlap the non-usable one wins. An absent
 * SRAT, or one that leaves more than 1 MiB uncovered, puts everything on node 0.
 * @public
 */
export function memblockFromFirmware(
  e820: readonly E820Entry[],
  srat: readonly SratEntry[],
): readonly MemblockRegion[] {
  const ram = subtract(
    e820.filter((entry) => entry.type === 'usable'),
    e820.filter((entry) => entry.type !== 'usable'),
  );
  const nodes = coversEnough(ram, srat) ? [...srat].sort((a, b) => a.start - b.start) : [];
  const pmem = subtract(
    e820.filter((entry) => entry.type === 'legacy-pmem'),
    e820.filter((entry) => entry.type !== 'legacy-pmem' && entry.type !== 'usable'),
  );
  return mergeMemblock([
    ...wholePages(ram).flatMap((range) => splitByNode(range, nodes, 'ram')),
    ...wholePages(pmem).flatMap((range) => splitByNode(range, nodes, 'legacy-pmem')),
  ]);
}

/** `regions` less `range`. @public */
export function without<T extends AddressRange>(regions: readonly T[], range: AddressRange): readonly T[] {
  return regions.flatMap((region) =>
    overlaps(region, range)
      ? [
          { ...region, end: Math.min(region.end, range.start) },
          { ...region, start: Math.max(region.start, range.end) },
        ].filter((piece) => piece.start < piece.end)
      : [region],
  );
}

/** Regions ascending, with adjacent ones of the same node, kind and source made one. @public */
export function mergeMemblock(regions: readonly MemblockRegion[]): readonly MemblockRegion[] {
  const merged: MemblockRegion[] = [];
  for (const region of [...regions].sort((a, b) => a.start - b.start)) {
    const last = merged.at(-1);
    if (
      last !== undefined &&
      last.end === region.start &&
      last.node === region.node &&
      last.kind === region.kind &&
      last.source === region.source
    ) {
      merged[merged.length - 1] = { ...last, end: region.end };
    } else merged.push(region);
  }
  return merged;
}

function wholePages(ranges: readonly AddressRange[]): AddressRange[] {
  return ranges
    .map(({ start, end }) => ({ start: alignUp(start, PAGE_4K), end: alignDown(end, PAGE_4K) }))
    .filter(({ start, end }) => start < end);
}

/** `ranges` in whole pages, cut at the borders of nodes; what the SRAT does not cover is on node 0. @public */
export function assignNodes(
  ranges: readonly AddressRange[],
  srat: readonly SratEntry[],
): readonly MemblockRegion[] {
  const nodes = [...srat].sort((a, b) => a.start - b.start);
  return mergeMemblock(wholePages(ranges).flatMap((range) => splitByNode(range, nodes, 'ram')));
}

function coversEnough(ram: readonly AddressRange[], srat: readonly SratEntry[]): boolean {
  if (srat.length === 0) return false;
  const uncovered = subtract(ram, srat).reduce((sum, { start, end }) => sum + end - start, 0);
  return uncovered <= MAX_UNCOVERED;
}

/** `range` cut at the borders of the ascending `nodes`; uncovered pieces belong to node 0. */
function splitByNode(
  range: AddressRange,
  nodes: readonly SratEntry[],
  kind: MemblockRegion['kind'],
): MemblockRegion[] {
  const out: MemblockRegion[] = [];
  let at = range.start;
  const take = (end: number, node: number): void => {
    if (end > at) out.push({ start: at, end, node, kind });
    at = Math.max(at, end);
  };
  for (const entry of nodes) {
    if (!overlaps(entry, { start: at, end: range.end })) continue;
    take(alignUp(entry.start, PAGE_4K), 0);
    take(Math.min(alignDown(entry.end, PAGE_4K), range.end), entry.node);
  }
  take(range.end, 0);
  return out;
}
