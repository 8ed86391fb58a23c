/** The kernel's own changes to the firmware's memory map: `memmap=` and `mem=` on its command line. */
import type { AddressRange } from '../abi/address.ts';
import { byStart, intersect, subtract, union } from '../abi/ranges.ts';
import type { E820Entry, E820Type } from '../machine/description.ts';
import { E820_NUMBERS } from './e820-words.ts';
import { ADDRESS_LIMIT } from './parse-number.ts';

/** One change. `from` limits it to entries of a type; `to` undefined takes the memory away. @internal */
export interface MapChange extends AddressRange {
  readonly from?: E820Type;
  readonly to?: E820Type;
  /** Memory that is only added where the map has nothing (`nn@ss`). */
  readonly onlyGaps?: boolean;
}

/** More changes than any command line has room to mean; each walks the whole map. */
const MAX_CHANGES = 64;

const TYPE_OF_MARK: Readonly<Record<string, E820Type>> = {
  '@': 'usable',
  '#': 'acpi-data',
  $: 'reserved',
  '!': 'legacy-pmem',
};

const SIZE = '(0x[0-9a-fA-F]+|[0-9]+)([KMGTP]?)';
const OPTION = new RegExp(`^${SIZE}(?:([@#$!%])${SIZE}(?:-(\\w+))?(?:\\+(\\w+))?)?$`, 'i');

const UNITS: Readonly<Record<string, number>> = { '': 0, K: 1, M: 2, G: 3, T: 4, P: 5 };

/** The changes in order, and the words that are none. @internal */
export function parseMapOptions(commandLine: string): { changes: MapChange[]; unread: string[] } {
  const changes: MapChange[] = [];
  const unread: string[] = [];
  for (const [, key, value] of commandLine.matchAll(/(?:^|\s)(mem|memmap)=(\S*)/g)) {
    for (const word of value!.replaceAll('\\', '').split(',')) {
      const change = key === 'memmap' && word === 'exactmap' ? EXACT_MAP : parseOption(word);
      if (change === undefined || changes.length >= MAX_CHANGES) unread.push(`${key}=${word}`);
      else changes.push(change);
    }
  }
  return { changes, unread };
}

/** `exactmap` forgets the firmware's map. */
const EXACT_MAP: MapChange = { start: 0, end: ADDRESS_LIMIT };

function parseOption(word: string): MapChange | undefined {
  const match = OPTION.exec(word);
  if (match === null) return undefined;
  const size = bytes(match[1]!, match[2]!);
  const mark = match[3];
  // A size alone is where usable memory ends.
  if (mark === undefined)
    return size < ADDRESS_LIMIT ? { start: size, end: ADDRESS_LIMIT, from: 'usable' } : undefined;
  const start = bytes(match[4]!, match[5]!);
  const range = { start, end: start + size };
  if (size === 0 || !(range.end <= ADDRESS_LIMIT)) return undefined;
  if (mark !== '%') {
    const to = TYPE_OF_MARK[mark]!;
    return (match[6] ?? match[7]) ? undefined : { ...range, to, onlyGaps: to === 'usable' };
  }
  const from = typeNumbered(match[6]);
  const to = typeNumbered(match[7]);
  if (from === null || to === null) return undefined;
  return { ...range, ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) };
}

/** Undefined for no number, null for one that is no type. */
function typeNumbered(digits: string | undefined): E820Type | undefined | null {
  return digits === undefined ? undefined : (E820_NUMBERS[Number(digits)] ?? null);
}

function bytes(digits: string, unit: string): number {
  return Number(digits) * 1024 ** UNITS[unit.toUpperCase()]!;
}

/** The map with the change made. @internal */
export function changeMap(map: readonly E820Entry[], change: MapChange): E820Entry[] {
  if (change.onlyGaps) return withEntries(map, subtract([change], map), 'usable');
  const { from, to } = change;
  const target =
    from === undefined ? [change] : intersect([change], union(map.filter((entry) => entry.type === from)));
  const kept = map.flatMap((entry) =>
    entry.start < change.end && change.start < entry.end
      ? subtract([entry], target).map((piece) => ({ ...piece, type: entry.type }))
      : [entry],
  );
  return to === undefined ? kept : withEntries(kept, target, to);
}

function withEntries(map: readonly E820Entry[], added: readonly AddressRange[], type: E820Type): E820Entry[] {
  return [...map, ...added.map(({ start, end }) => ({ start, end, type }))].sort(byStart);
}
