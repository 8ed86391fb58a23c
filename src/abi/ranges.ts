/** Sets of addresses as lists of half-open ranges. */
import type { AddressRange } from '../abi/address.ts';

/** Ascending by start. @public */
export function byStart(a: AddressRange, b: AddressRange): number {
  return a.start - b.start;
}

/** In ascending order; maps mostly are already, and looking is much cheaper than sorting. @public */
export function ascending<T extends AddressRange>(ranges: readonly T[]): readonly T[] {
  const isAscending = ranges.every((range, i) => i === 0 || ranges[i - 1]!.start <= range.start);
  return isAscending ? ranges : [...ranges].sort(byStart);
}

/** The bytes in any of the ranges, as ascending ranges that neither overlap nor touch. @public */
export function union(ranges: readonly AddressRange[]): AddressRange[] {
  const merged: { start: number; end: number }[] = [];
  for (const { start, end } of ascending(ranges)) {
    const last = merged.at(-1);
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end);
    else if (start < end) merged.push({ start, end });
  }
  return merged;
}

/** The bytes of `ranges` that are in none of `holes`, ascending. @public */
export function subtract(ranges: readonly AddressRange[], holes: readonly AddressRange[]): AddressRange[] {
  if (ranges.length === 0) return [];
  const cuts = union(holes);
  const rest: AddressRange[] = [];
  let next = 0;
  for (const { start, end } of union(ranges)) {
    while (next < cuts.length && cuts[next]!.end <= start) next++;
    let at = start;
    for (let i = next; i < cuts.length && cuts[i]!.start < end; i++) {
      if (at < cuts[i]!.start) rest.push({ start: at, end: cuts[i]!.start });
      at = Math.max(at, cuts[i]!.end);
    }
    if (at < end) rest.push({ start: at, end });
  }
  return rest;
}

/** The bytes in both sets, ascending. @public */
export function intersect(a: readonly AddressRange[], b: readonly AddressRange[]): AddressRange[] {
  return subtract(a, subtract(a, b));
}

/** The first range that starts before the one in front of it ends, in order of addresses. @public */
export function firstOverlap<T extends AddressRange>(ranges: readonly T[]): [T, T] | undefined {
  const sorted = ascending(ranges);
  for (let i = 1; i < sorted.length; i++) {
    if (sorted[i]!.start < sorted[i - 1]!.end) return [sorted[i - 1]!, sorted[i]!];
  }
  return undefined;
}
