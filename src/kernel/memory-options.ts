/** Options of the kernel command line that change what memory the kernel has: memmap=, kernelcore=. */
import { type AddressRange, alignUp, GIB } from '../abi/address.ts';
import type { E820Entry, E820Type } from '../machine/description.ts';
import { MAX_ORDER } from './allocator.ts';
import { type MemblockRegion, without } from './memblock.ts';

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };
const MEMMAP = /^(?<size>[^@#$!]+)(?<kind>[@#$!])(?<start>.+)$/;
const KINDS: Readonly<Record<string, E820Type>> = {
  '@': 'usable',
  '#': 'acpi-data',
  $: 'reserved',
  '!': 'legacy-pmem',
};
/** Movable memory of boot is carved out of the zone Normal, in whole buddy blocks. */
const MOVABLE_FLOOR = 4 * GIB;
const BLOCK_BYTES = 4096 * 2 ** MAX_ORDER;

/** A number with a unit such as 512M or 0x100000; undefined where it is none. @internal */
export function parseBytes(text: string): number | undefined {
  const { digits, unit = '' } = /^(?<digits>0x[0-9a-f]+|\d+)(?<unit>[kmgt]?)$/i.exec(text)?.groups ?? {};
  return digits === undefined ? undefined : Number(digits) * UNITS[unit.toUpperCase()]!;
}

/** The entries of one or more `memmap=` values; what cannot be read is left out, as the kernel does. @internal */
export function parseMemmap(values: readonly string[]): readonly E820Entry[] {
  return values
    .flatMap((value) => value.split(','))
    .flatMap((text) => {
      const { size = '', kind = '', start = '' } = MEMMAP.exec(text)?.groups ?? {};
      const [bytes, first] = [parseBytes(size), parseBytes(start)];
      return bytes === undefined || first === undefined
        ? []
        : [{ start: first, end: first + bytes, type: KINDS[kind]! }];
    });
}

/** The firmware's map with entries of `memmap=` over it, the later over the earlier. @public */
export function overrideMemoryMap(
  e820: readonly E820Entry[],
  memmap: readonly E820Entry[],
): readonly E820Entry[] {
  return memmap
    .reduce((map, entry) => [...without(map, entry), entry], e820)
    .toSorted((a, b) => a.start - b.start);
}

/**
 * Memory that `kernelcore=` leaves for movable pages only: on every node what lies above its equal share of `bytes`.
 * @public
 */
export function movableMemory(
  memblock: readonly MemblockRegion[],
  bytes: number | null,
): readonly AddressRange[] {
  if (bytes === null) return [];
  const ram = memblock.filter(({ kind }) => kind === 'ram');
  const nodes = [...new Set(ram.map(({ node }) => node))];
  return nodes.flatMap((node) => {
    let left = bytes / nodes.length;
    return ram
      .filter((region) => region.node === node)
      .flatMap(({ start, end }) => {
        const kernel = Math.min(left, end - start);
        left -= kernel;
        const first = Math.max(MOVABLE_FLOOR, alignUp(start + kernel, BLOCK_BYTES));
        return first < end ? [{ start: first, end }] : [];
      });
  });
}
