/** Which memory map the machine has, of all the maps its sources show. */
import { formatRange } from '../abi/address.ts';
import { ascending, firstOverlap } from '../abi/ranges.ts';
import type { E820Entry } from '../machine/description.ts';
import { type Evidence, inputErrorAt, type Located, type MapName } from './evidence.ts';
import { E820_TYPE_OF_RESOURCE } from './iomem-reader.ts';
import { changeMap, parseMapOptions } from './memmap-options.ts';
import { lastWith, type Remarks } from './remarks.ts';

/** The map as firmware gave it, and as the kernel's command line made it. Ascending, without overlaps. @internal */
export interface MemoryMaps {
  readonly firmware: readonly E820Entry[];
  readonly effective: readonly E820Entry[];
}

/** The later a kernel prints a map, the more it holds. */
const BY_AUTHORITY: readonly MapName[] = ['modified', 'user', 'firmware', 'extended'];

/** Options that change what memory or nodes a kernel sees, and that are not followed here. */
const NOT_APPLIED = /(?<!\S)(?:numa|efi_fake_mem)=\S+/g;

/** A kernel's own map has room for about 3200 entries; overlapping ones are resolved up to here. */
const MAX_OVERLAPPING = 4096;

/** Empty maps where no source shows one. Throws InputError when a firmware map overlaps itself. @internal */
export function chooseMaps(evidence: readonly Evidence[], remarks: Remarks): MemoryMaps {
  const log = lastWith(evidence, 'memory map', hasMap, remarks);
  if (log === undefined) return withoutChanges(mapOfResources(evidence, remarks));
  const { maps } = log;
  const name = BY_AUTHORITY.find((candidate) => maps[candidate].length > 0)!;
  const edited = name === 'modified' || name === 'user';
  if (edited) remarks.at(maps[name][0]!.place, `the kernel's '${name}' memory map replaces the firmware's`);
  const firmware = ordered(maps[edited || name === 'firmware' ? 'firmware' : name], false, remarks);
  if (edited) {
    const effective = ordered(maps[name], true, remarks);
    return { firmware: firmware.length > 0 ? firmware : effective, effective };
  }
  return { firmware, effective: withOptions(firmware, log, remarks) };
}

function hasMap({ maps }: Evidence): boolean {
  return BY_AUTHORITY.some((name) => maps[name].length > 0);
}

function withoutChanges(map: readonly E820Entry[]): MemoryMaps {
  return { firmware: map, effective: map };
}

function mapOfResources(evidence: readonly Evidence[], remarks: Remarks): readonly E820Entry[] {
  const holder = lastWith(evidence, '/proc/iomem', (one) => one.resources.length > 0, remarks);
  const entries = (holder?.resources ?? []).flatMap(({ depth, name, start, end, place }) => {
    const type = depth === 0 ? E820_TYPE_OF_RESOURCE[name] : undefined;
    return type === undefined ? [] : [{ start, end, type, place }];
  });
  if (entries.length > 0) remarks.at({ source: holder!.source }, '/proc/iomem stands for the memory map');
  return ordered(entries, false, remarks);
}

function withOptions(map: readonly E820Entry[], log: Evidence, remarks: Remarks): readonly E820Entry[] {
  const { changes, unread } = parseMapOptions(log.commandLine ?? '');
  for (const [word] of (log.commandLine ?? '').matchAll(NOT_APPLIED)) {
    remarks.at({ source: log.source }, `option '${word}' is not applied`);
  }
  for (const word of unread) remarks.at({ source: log.source }, `option '${word}' is not understood`);
  if (changes.length > 0) {
    remarks.at({ source: log.source }, 'mem= and memmap= of the command line are applied to the memory map');
  }
  return changes.reduce<readonly E820Entry[]>(changeMap, map);
}

/** Overlaps are an error in what firmware gave, and resolved in what a user edited: there the later entry wins. */
function ordered(entries: readonly Located<E820Entry>[], edited: boolean, remarks: Remarks): E820Entry[] {
  const bare = ({ start, end, type }: E820Entry): E820Entry => ({ start, end, type });
  const overlap = firstOverlap(entries);
  if (overlap === undefined) return ascending(entries).map(bare);
  const [before, after] = overlap;
  const later = (after.place.line ?? 0) > (before.place.line ?? 0) ? after : before;
  const text = `memory map entry ${formatRange(after)} overlaps ${formatRange(before)}`;
  if (!edited || entries.length > MAX_OVERLAPPING) throw inputErrorAt(later.place, text);
  remarks.at(later.place, `${text}: the later entry wins`);
  return entries.reduce<E820Entry[]>(
    (map, { start, end, type }) => changeMap(map, { start, end, to: type }),
    [],
  );
}
