/** The words kernels print for the types of firmware memory map entries. */
import type { E820Type } from '../machine/description.ts';

const WORDS: Readonly<Record<string, E820Type>> = {
  usable: 'usable',
  reserved: 'reserved',
  'acpi data': 'acpi-data',
  'acpi nvs': 'acpi-nvs',
  unusable: 'unusable',
  'soft reserved': 'soft-reserved',
  // Wording since Linux 7.
  'system ram': 'usable',
  'device reserved': 'reserved',
  'unusable memory': 'unusable',
};

/** E820 type numbers: ACPI 6 table 15-374, and Linux's own 12 for `memmap=nn!ss`. @internal */
export const E820_NUMBERS: Readonly<Record<number, E820Type>> = {
  1: 'usable',
  2: 'reserved',
  3: 'acpi-data',
  4: 'acpi-nvs',
  5: 'unusable',
  7: 'pmem',
  12: 'legacy-pmem',
  4026531839: 'soft-reserved',
};

/** The type that `words` name, such as `ACPI data` or `persistent (type 12)`; undefined for others. @internal */
export function e820TypeOf(words: string): E820Type | undefined {
  const text = words.trim().toLowerCase();
  const number = /^(?:persistent[a-z ]*\()?type (\d+)\)?$/.exec(text);
  return number === null ? WORDS[text] : E820_NUMBERS[Number(number[1])];
}
