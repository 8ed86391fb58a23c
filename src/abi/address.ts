/**
 * Arithmetic on physical addresses, sizes and page frame numbers held as `number` (52 bits fit exactly).
 * JavaScript's bit operators truncate to 32 bits, so every such operation lives here.
 */

/** Bytes in the three page sizes and other units of the ABI. @public */
export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;
export const TIB = 1024 * GIB;
export const PAGE_4K = 4 * KIB;
export const PAGE_2M = 2 * MIB;
export const PAGE_1G = GIB;
export const CACHE_LINE = 64;

/** Half-open range `[start, end)` of physical addresses in bytes. @public */
export interface AddressRange {
  readonly start: number;
  readonly end: number;
}

/** Largest multiple of `unit` that is not above `value`. Below 2^52 the quotient's rounding never reaches the next. @public */
export function alignDown(value: number, unit: number): number {
  return Math.floor(value / unit) * unit;
}

/** Smallest multiple of `unit` that is not below `value`. @public */
export function alignUp(value: number, unit: number): number {
  const down = alignDown(value, unit);
  return down === value ? value : down + unit;
}

/** True when `value` is a multiple of `unit`. @public */
export function isAligned(value: number, unit: number): boolean {
  return alignDown(value, unit) === value;
}

/**
 * The remainder of `value` by `unit`, a power of two up to 1 GiB: its low bits survive truncation to 32. The operator %
 * is a slow division on numbers beyond 32 bits.
 * @public
 */
export function offsetIn(value: number, unit: number): number {
  return value & (unit - 1);
}

/** Page frame number of an address (4 KiB pages). @public */
export function pfnOf(address: number): number {
  return Math.floor(address / PAGE_4K);
}

/** Number of the 1 GiB block of an address. @public */
export function index1g(address: number): number {
  return Math.floor(address / PAGE_1G);
}

/** Number of the 2 MiB range of an address within its 1 GiB block. @public */
export function index2m(address: number): number {
  return offsetIn(address, PAGE_1G) >>> 21;
}

/** Number of the 4 KiB page of an address within its 2 MiB range. @public */
export function index4k(address: number): number {
  return offsetIn(address, PAGE_2M) >>> 12;
}

/** Physical address with a KeyID in the bits just above the usable ones; together they are at most 52 bits. @public */
export function withKeyId(address: number, keyId: number, keyIdStartBit: number): number {
  return address + keyId * 2 ** keyIdStartBit;
}

/** True when two half-open ranges share a byte. @public */
export function overlaps(a: AddressRange, b: AddressRange): boolean {
  return a.start < b.end && b.start < a.end;
}

/** True when `inner` lies wholly within `outer`. @public */
export function contains(outer: AddressRange, inner: AddressRange): boolean {
  return outer.start <= inner.start && inner.end <= outer.end;
}

/** Lower-case hexadecimal with `0x`, as kernel logs and traces print addresses. @public */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}

/** A range as kernel logs print it, half open: `[0x0, 0x80000000)`. @public */
export function formatRange(range: AddressRange): string {
  return `[${hex(range.start)}, ${hex(range.end)})`;
}
