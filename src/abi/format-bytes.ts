/** Sizes as people read them. */
import { GIB, KIB, MIB, TIB } from './address.ts';

const UNITS: readonly (readonly [size: number, name: string])[] = [
  [TIB, 'TiB'],
  [GIB, 'GiB'],
  [MIB, 'MiB'],
  [KIB, 'KiB'],
];

/** A size for people: `1.5 GiB`; at most two decimals, none for a whole number. @public */
export function formatBytes(bytes: number): string {
  const [size, name] = UNITS.find(([unit]) => bytes >= unit) ?? [1, 'B'];
  return `${Number((bytes / size).toFixed(2))} ${name}`;
}
