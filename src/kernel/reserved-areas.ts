/** Reserved areas of a TDMR: what in it is no TDX memory, and where PAMTs lie (Linux host rules 1.4 step 3). */
import { type AddressRange, alignDown, alignUp, formatRange, overlaps, PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';

/** One reserved area, by absolute addresses; the TDMR_INFO holds its offset from the TDMR's base. @public */
export interface ReservedArea extends AddressRange {
  readonly why: 'hole' | 'pamt';
}

/**
 * Parts of `tdmr` that none of the ascending `memory` ranges cover. Each takes one slot; neighbours are not
 * joined. @public
 */
export function holesIn(tdmr: AddressRange, memory: readonly AddressRange[]): readonly AddressRange[] {
  const holes: AddressRange[] = [];
  let previousEnd = tdmr.start;
  for (const range of memory) {
    if (range.start >= tdmr.end) break;
    if (range.end < tdmr.start) continue;
    if (range.start > previousEnd) holes.push({ start: previousEnd, end: range.start });
    previousEnd = range.end;
  }
  if (previousEnd < tdmr.end) holes.push({ start: previousEnd, end: tdmr.end });
  return holes;
}

/**
 * Reserved areas of one TDMR, ascending. `memory` decides what is a hole; `pamts` are the PAMTs of all TDMRs.
 * Throws EINVAL for a hole that is not made of whole pages, ENOSPC when there are more areas than `limit`; both
 * reasons carry the TDMR, its holes and PAMTs, and the limit.
 * @public
 */
export function reservedAreas(
  tdmr: AddressRange,
  memory: readonly AddressRange[],
  pamts: readonly AddressRange[],
  limit: number,
  warn: (text: string, code: string) => void,
): readonly ReservedArea[] {
  const holes = holesIn(tdmr, memory);
  const inside = pamts
    .filter((pamt) => overlaps(pamt, tdmr))
    .map((pamt) => ({ start: Math.max(pamt.start, tdmr.start), end: Math.min(pamt.end, tdmr.end) }));
  const areas: ReservedArea[] = [
    ...holes.map((hole) => ({ ...hole, why: 'hole' as const })),
    ...inside.map((pamt) => ({ ...pamt, why: 'pamt' as const })),
  ].sort((a, b) => a.start - b.start);
  const data = {
    tdmr: { start: tdmr.start, end: tdmr.end },
    limit,
    needed: areas.length,
    holes,
    pamts: inside,
  };
  const split = holes.find(
    ({ start, end }) => alignDown(start, PAGE_4K) !== start || alignUp(end, PAGE_4K) !== end,
  );
  if (split !== undefined) {
    const text = `TDMR ${formatRange(tdmr)}: the hole ${formatRange(split)} is not made of whole pages`;
    throw new KernelError('EINVAL', 'reserved-area-unaligned', text, data);
  }
  if (areas.length > limit) {
    const text = `TDMR ${formatRange(tdmr)}: reserved areas exhausted`;
    warn(text, 'reserved-areas-exhausted');
    throw new KernelError(
      'ENOSPC',
      'reserved-areas-exhausted',
      `${text}: ${areas.length} needed (${holes.length} holes, ${inside.length} PAMTs), the module allows ${limit}`,
      data,
    );
  }
  for (let i = 1; i < areas.length; i++) {
    if (!overlaps(areas[i - 1]!, areas[i]!)) continue;
    warn(
      `TDMR ${formatRange(tdmr)}: reserved areas ${formatRange(areas[i - 1]!)} and ${formatRange(areas[i]!)} overlap`,
      'reserved-areas-overlap',
    );
  }
  return areas;
}
