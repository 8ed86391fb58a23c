/** Numbers as people read them. */
import { GIB, KIB, MIB, TIB } from '../abi/address.ts';

const UNITS: readonly (readonly [size: number, name: string])[] = [
  [TIB, 'TiB'],
  [GIB, 'GiB'],
  [MIB, 'MiB'],
  [KIB, 'KiB'],
];

/** `1.5 GiB`; at most two decimals, none for a whole number. @internal */
export function formatBytes(bytes: number): string {
  const [size, name] = UNITS.find(([unit]) => bytes >= unit) ?? [1, 'B'];
  return `${Number((bytes / size).toFixed(2))} ${name}`;
}

/** `1,050,636`. @internal */
export function formatCount(count: number): string {
  return count.toLocaleString('en-US');
}

/** JSON with bigints as hexadecimal strings, two blanks of indentation. @internal */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `0x${v.toString(16)}` : v), 2);
}
