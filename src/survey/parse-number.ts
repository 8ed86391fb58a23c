/** Numbers as logs and tables write them, checked against what hardware can have. */
import type { AddressRange } from '../abi/address.ts';
import { formatRange, hex } from '../abi/address.ts';
import { inputErrorAt, type Place } from './evidence.ts';

/** Addresses end here: x86 has at most 52 physical address bits. @internal */
export const ADDRESS_LIMIT = 2 ** 52;

/** An address from hexadecimal digits without `0x`. Throws InputError above 52 bits. */
function parseAddress(digits: string, place: Place): number {
  const address = Number.parseInt(digits, 16);
  if (address <= ADDRESS_LIMIT) return address;
  throw inputErrorAt(place, `address 0x${digits} is above 52 bits`);
}

/** `first-last` in hexadecimal digits, last byte included. Throws InputError when reversed. @internal */
export function parseInclusiveRange(first: string, last: string, place: Place): AddressRange {
  const start = parseAddress(first, place);
  const end = parseAddress(last, place) + 1;
  if (start < end && end <= ADDRESS_LIMIT) return { start, end };
  const wrong = start < end ? 'ends above 52 bits' : 'is reversed';
  throw inputErrorAt(place, `memory range ${hex(start)}-${hex(end - 1)} ${wrong}`);
}

/** `[start, end)` in hexadecimal digits, possibly empty. Throws InputError when reversed. @internal */
export function parseHalfOpenRange(first: string, after: string, place: Place): AddressRange {
  const range = { start: parseAddress(first, place), end: parseAddress(after, place) };
  if (range.start <= range.end) return range;
  throw inputErrorAt(place, `range ${formatRange(range)} is reversed`);
}

/** A decimal count, `what` naming it in the error. Throws InputError above `limit`. @internal */
export function parseCount(digits: string, limit: number, what: string, place: Place): number {
  const count = Number.parseInt(digits, 10);
  if (count <= limit) return count;
  throw inputErrorAt(place, `${digits} ${what} are more than the ${limit} a host can have`);
}
