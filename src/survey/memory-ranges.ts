/** The machine's memory by kind, state and node, from maps, CMRs, SRAT and CXL windows. */
import { type AddressRange, alignDown, alignUp, formatRange, GIB, PAGE_4K } from '../abi/address.ts';
import { byStart, firstOverlap, intersect, subtract, union } from '../abi/ranges.ts';
import type { E820Entry, E820Type, MemoryKind, MemoryRange, SratEntry } from '../machine/description.ts';
import { isRam } from './cmrs.ts';
import { type Evidence, inputErrorAt } from './evidence.ts';
import { CXL_MEMORY, CXL_WINDOW } from './iomem-reader.ts';
import type { NodeMap } from './node-map.ts';

/** What is put together. @internal */
export interface MemorySources {
  readonly map: readonly E820Entry[];
  readonly cmrs: readonly AddressRange[];
  readonly srat: readonly SratEntry[];
  readonly cxlWindows: readonly AddressRange[];
  readonly evidence: readonly Evidence[];
}

/** CXL windows of every source, ascending. Throws InputError when two overlap. @internal */
export function cxlWindowsOf(evidence: readonly Evidence[]): AddressRange[] {
  const windows = evidence.flatMap((one) => one.resources.filter(({ name }) => CXL_WINDOW.test(name)));
  const overlap = firstOverlap(windows);
  if (overlap !== undefined) {
    const [before, after] = overlap;
    throw inputErrorAt(after.place, `CXL window ${formatRange(after)} overlaps ${formatRange(before)}`);
  }
  return windows.map(({ start, end }) => ({ start, end })).sort(byStart);
}

/** Every address in one range at most; ascending. @internal */
export function memoryRanges(sources: MemorySources, nodes: NodeMap): MemoryRange[] {
  const { map, cmrs, srat, cxlWindows, evidence } = sources;
  const typed = (...types: readonly E820Type[]): AddressRange[] =>
    map.filter((entry) => types.includes(entry.type));
  const resources = evidence.flatMap((one) => one.resources);
  const announced = (nonVolatile: boolean): AddressRange[] =>
    srat.filter((entry) => entry.hotplug && entry.nonVolatile === nonVolatile);

  const inUse = resources.filter(({ name, depth }) => depth > 0 && CXL_MEMORY.test(name));
  const cxl = intersect(cxlWindows, [...inUse, ...typed('soft-reserved', 'usable')]);
  // Persistent memory is an NVDIMM where a table or the resource tree calls it one; what only the memory map
  // knows is legacy persistent memory.
  const nvdimm = intersect(typed('pmem'), [
    ...srat.filter((entry) => entry.nonVolatile),
    ...resources.filter(({ name }) => name === 'Persistent Memory'),
  ]);

  let taken: AddressRange[] = [];
  let memory: MemoryRange[] = [];
  const add = (kind: MemoryKind, state: MemoryRange['state'], ranges: readonly AddressRange[]): void => {
    const pieces = subtract(ranges.map(wholePages), taken);
    taken = taken.concat(pieces);
    memory = memory.concat(
      pieces.flatMap((piece) => nodes.split(piece)).map((piece) => ({ ...piece, kind, state })),
    );
  };
  add('cxl', 'present', cxl);
  add('nvdimm', 'present', nvdimm);
  add('legacy-pmem', 'present', typed('pmem', 'legacy-pmem'));
  add('soft-reserved', 'present', typed('soft-reserved'));
  add('ram', 'present', union([...map.filter(isRam), ...cmrs]));
  add('cxl', 'hot-pluggable', cxlWindows);
  add('ram', 'hot-pluggable', announced(false));
  add('nvdimm', 'hot-pluggable', announced(true));
  return memory.sort(byStart);
}

function wholePages({ start, end }: AddressRange): AddressRange {
  return { start: alignDown(start, PAGE_4K), end: alignUp(end, PAGE_4K) };
}

/**
 * A SRAT that tells the kernel the nodes that were found or assumed without one: an entry per run of memory on
 * one node, cut at 4 GiB as firmware does. Empty where there is one node only.
 * @internal
 */
export function sratFor(memory: readonly MemoryRange[]): SratEntry[] {
  const entries: SratEntry[] = [];
  for (const { start, end, node, state, kind } of memory) {
    const [hotplug, nonVolatile] = [state === 'hot-pluggable', kind === 'nvdimm'];
    const last = entries.at(-1);
    const continues =
      last !== undefined &&
      last.node === node &&
      last.hotplug === hotplug &&
      last.nonVolatile === nonVolatile &&
      last.end > 4 * GIB === end > 4 * GIB;
    if (continues) entries[entries.length - 1] = { ...last, end };
    else entries.push({ start, end, proximityDomain: node, node, hotplug, nonVolatile });
  }
  return entries.some((entry) => entry.node !== 0) ? entries : [];
}
