/** Reserved areas of a TDMR: what in it is no TDX memory, and where PAMTs lie (Linux host rules 1.4 step 3). */
import { type AddressRange, formatRange, isAligned, overlaps, PAGE_4K } from '../abi/address.ts';
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

/** Every reserved area `tdmr` needs, ascending, whatever the limit; `pamts` are the PAMTs of all TDMRs. @public */
export function neededReservedAreas(
  tdmr: AddressRange,
  memory: readonly AddressRange[],
  pamts: readonly AddressRange[],
): readonly ReservedArea[] {
  const holes = holesIn(tdmr, memory).map((hole) => ({ ...hole, why: 'hole' as const }));
  const inside = pamts
    .filter((pamt) => overlaps(pamt, tdmr))
    .map((pamt) => ({
      start: Math.max(pamt.start, tdmr.start),
      end: Math.min(pamt.end, tdmr.end),
      why: 'pamt' as const,
    }));
  return [...holes, ...inside].sort((a, b) => a.start - b.start);
}

/**
 * The reserved areas of one TDMR. Throws EINVAL for one that is not made of whole pages, ENOSPC when there are
 * more than `limit`; both reasons carry the TDMR, its holes and PAMTs, and the limit.
 * @public
 */
export function reservedAreas(
  tdmr: AddressRange,
  memory: readonly AddressRange[],
  pamts: readonly AddressRange[],
  limit: number,
  warn: (text: string, code: string) => void,
): readonly ReservedArea[] {
  const areas = neededReservedAreas(tdmr, memory, pamts);
  const rangesOf = (why: ReservedArea['why']): AddressRange[] =>
    areas.filter((area) => area.why === why).map(({ start, end }) => ({ start, end }));
  const holes = rangesOf('hole');
  const inside = rangesOf('pamt');
  const data = {
    tdmr: { start: tdmr.start, end: tdmr.end },
    limit,
    needed: areas.length,
    holes,
    pamts: inside,
  };
  const split = areas.find(({ start, end }) => !isAligned(start, PAGE_4K) || !isAligned(end, PAGE_4K));
  if (split !== undefined) {
    const text = `TDMR ${formatRange(tdmr)}: reserved area ${formatRange(split)} is not made of whole pages`;
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
    const pair = `${formatRange(areas[i - 1]!)} and ${formatRange(areas[i]!)}`;
    warn(`TDMR ${formatRange(tdmr)}: reserved areas ${pair} overlap`, 'reserved-areas-overlap');
  }
  return areas;
}
