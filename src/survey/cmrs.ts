/** The convertible memory regions: as a log shows them, or as MCHECK would report the machine's RAM. */
import { type AddressRange, alignDown, alignUp, formatRange, GIB, MIB, PAGE_4K } from '../abi/address.ts';
import { byStart, firstOverlap, subtract, union } from '../abi/ranges.ts';
import { type E820Entry, MAX_CMRS } from '../machine/description.ts';
import { type Evidence, inputErrorAt } from './evidence.ts';
import { lastWith, type Remarks } from './remarks.ts';

/** Real logs show CMRs from here on. */
const FIRST_CMR_ADDRESS = MIB;
const LOW_MEMORY_END = 4 * GIB;

/** Entries that are RAM, whoever uses it. @internal */
export function isRam(entry: E820Entry): boolean {
  return entry.type === 'usable' || entry.type === 'acpi-data' || entry.type === 'acpi-nvs';
}

/** CMRs that a log shows, ascending; none where no log does. Throws InputError for ones MCHECK cannot find. @internal */
export function observedCmrs(evidence: readonly Evidence[], remarks: Remarks): AddressRange[] {
  const holder = lastWith(evidence, 'CMR list', (one) => one.cmrs.length > 0, remarks);
  const cmrs = holder?.cmrs ?? [];
  if (cmrs.length > MAX_CMRS) {
    throw inputErrorAt(cmrs[MAX_CMRS]!.place, `more than the ${MAX_CMRS} CMRs a platform can have`);
  }
  const overlap = firstOverlap(cmrs);
  if (overlap !== undefined) {
    const [before, after] = overlap;
    throw inputErrorAt(after.place, `CMR ${formatRange(after)} overlaps CMR ${formatRange(before)}`);
  }
  return cmrs.map(({ start, end }) => ({ start, end })).sort(byStart);
}

/**
 * CMRs from the firmware's map. Below 4 GiB what lies between RAM entries is RAM that firmware keeps for itself;
 * above, holes are holes. When more than 32 result, the smallest gaps are closed.
 * @internal
 */
export function assumeCmrs(map: readonly E820Entry[], remarks: Remarks): AddressRange[] {
  const ram = map.filter(isRam);
  const low = ram.filter((entry) => entry.end <= LOW_MEMORY_END);
  const lowEnd = low.at(-1)?.end ?? 0;
  const lowStart = low[0]?.start ?? 0;
  const between = map.filter(
    ({ type, start, end }) => type === 'reserved' && lowStart <= start && end <= lowEnd,
  );
  const regions = subtract([...ram, ...between], [{ start: 0, end: FIRST_CMR_ADDRESS }])
    .map(({ start, end }) => ({ start: alignUp(start, PAGE_4K), end: alignDown(end, PAGE_4K) }))
    .filter(({ start, end }) => start < end);
  if (regions.length > 0) remarks.assume('no CMR list: CMRs are assumed to be the RAM of the memory map');
  return closeSmallestGaps(regions, MAX_CMRS);
}

function closeSmallestGaps(regions: readonly AddressRange[], most: number): AddressRange[] {
  const gaps = regions.slice(1).map((region, i) => ({ start: regions[i]!.end, end: region.start }));
  const closed = gaps
    .sort((a, b) => a.end - a.start - (b.end - b.start))
    .slice(0, Math.max(0, regions.length - most));
  return union([...regions, ...closed]);
}

/**
 * The map with CMRs in place of what it lacks: all of them where there is no map, otherwise those wholly beyond
 * the addresses that a cut map covers.
 * @internal
 */
export function coverWithCmrs(
  map: readonly E820Entry[],
  cmrs: readonly AddressRange[],
  remarks: Remarks,
): readonly E820Entry[] {
  const covered = { start: map[0]?.start ?? 0, end: map.at(-1)?.end ?? 0 };
  const missing = cmrs.filter((cmr) => cmr.end <= covered.start || cmr.start >= covered.end);
  if (missing.length === 0) return map;
  const beyond =
    missing.length === 1 ? 'the CMR beyond it stands' : `the ${missing.length} CMRs beyond it stand`;
  remarks.assume(
    map.length === 0
      ? 'no memory map: the CMRs stand for the memory'
      : `the memory map covers only ${formatRange(covered)}: ${beyond} for memory`,
  );
  const standIns = missing.map((cmr): E820Entry => ({ ...cmr, type: 'usable' }));
  return [...map, ...standIns].sort(byStart);
}
