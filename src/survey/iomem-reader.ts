/** Reads /proc/iomem: ranges of addresses with what they hold, nested by two spaces. */
import type { E820Type } from '../machine/description.ts';
import { addFact, type Evidence, inputErrorAt, type Place } from './evidence.ts';
import { parseInclusiveRange } from './parse-number.ts';

const LINE = /^( *)([0-9a-f]+)-([0-9a-f]+) : (.+)$/;

/** Names of memory at the top level, by the type of the firmware map entry they come from. @internal */
export const E820_TYPE_OF_RESOURCE: Readonly<Record<string, E820Type>> = {
  'System RAM': 'usable',
  Reserved: 'reserved',
  reserved: 'reserved',
  'ACPI Tables': 'acpi-data',
  'ACPI Non-volatile Storage': 'acpi-nvs',
  'Unusable memory': 'unusable',
  'Persistent Memory': 'pmem',
  'Persistent Memory (legacy)': 'legacy-pmem',
  'Soft Reserved': 'soft-reserved',
};

/** A CXL window, and what lies inside one when its memory is in use. @internal */
export const CXL_WINDOW = /^CXL Window \d+$/;
export const CXL_MEMORY = /^(?:System RAM \(kmem\)|region\d+)$/;

/** Takes the line when it is one of /proc/iomem that tells of memory; false when it is none. @internal */
export function readIomemLine(evidence: Evidence, text: string, place: Place): boolean {
  if (!text.includes(' : ')) return false;
  const match = LINE.exec(text);
  if (match === null) return false;
  const [, indent, first, last, rest] = match as unknown as [string, string, string, string, string];
  const name = rest.trimEnd();
  const wanted = name in E820_TYPE_OF_RESOURCE || CXL_WINDOW.test(name) || CXL_MEMORY.test(name);
  if (!wanted) return true;
  // An unprivileged reader is shown zeroes for every address.
  if (/^0+$/.test(first) && /^0+$/.test(last)) {
    throw inputErrorAt(place, 'every address is zero: read /proc/iomem as root');
  }
  const range = parseInclusiveRange(first, last, place);
  addFact(evidence.resources, { ...range, depth: Math.floor(indent.length / 2), name, place }, place);
  return true;
}
