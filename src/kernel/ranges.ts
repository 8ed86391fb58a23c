/** Sets of addresses as lists of ranges. */
import type { AddressRange } from '../abi/address.ts';

/** Ascending disjoint ranges that cover the same addresses. @internal */
export function normalize(ranges: readonly AddressRange[]): AddressRange[] {
  const out: { start: number; end: number }[] = [];
  for (const range of [...ranges].sort((a, b) => a.start - b.start)) {
    const last = out.at(-1);
    if (last !== undefined && range.start <= last.end) last.end = Math.max(last.end, range.end);
    else out.push({ start: range.start, end: range.end });
  }
  return out;
}

/** What of the normalized `ranges` no normalized `holes` cover. @internal */
export function subtract(ranges: readonly AddressRange[], holes: readonly AddressRange[]): AddressRange[] {
  const out: AddressRange[] = [];
  let first = 0;
  for (const range of ranges) {
    let at = range.start;
    while (first < holes.length && holes[first]!.end <= range.start) first++;
    for (let i = first; i < holes.length && holes[i]!.start < range.end; i++) {
      const hole = holes[i]!;
      if (hole.start > at) out.push({ start: at, end: hole.start });
      at = Math.max(at, hole.end);
    }
    if (at < range.end) out.push({ start: at, end: range.end });
  }
  return out;
}

/** What two normalized lists both cover. @internal */
export function intersect(a: readonly AddressRange[], b: readonly AddressRange[]): AddressRange[] {
  return subtract(a, subtract(a, b));
}
