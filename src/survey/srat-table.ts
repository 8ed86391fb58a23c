/** Reads the binary SRAT, as /sys/firmware/acpi/tables/SRAT holds it (ACPI 6, 5.2.16). */
import { hex } from '../abi/address.ts';
import { inputErrorAt, type Place } from './evidence.ts';
import type { AffinityStructure } from './srat-structures.ts';

/** Bytes in front of the first structure: the ACPI header, a reserved u32 and a reserved u64. */
const HEADER_BYTES = 48;

/** Revision 1 has proximity domains of 8 bits; the other bytes were reserved. */
const FIRST_REVISION_WITH_WIDE_DOMAINS = 2;

/** Structure types read here, with the length ACPI gives them. */
const LENGTHS: Readonly<Record<number, number>> = { 0: 16, 1: 40, 2: 24 };

/** Throws InputError for a wrong signature, length or checksum. @internal */
export function readSratTable(bytes: Uint8Array, place: Place): AffinityStructure[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEADER_BYTES || String.fromCharCode(...bytes.subarray(0, 4)) !== 'SRAT') {
    throw inputErrorAt(place, 'not a SRAT: its header is missing or cut');
  }
  const length = view.getUint32(4, true);
  if (length !== bytes.length) {
    throw inputErrorAt(place, `the SRAT header says ${length} bytes but there are ${bytes.length}`);
  }
  const sum = bytes.reduce((total, byte) => (total + byte) % 256, 0);
  if (sum !== 0) throw inputErrorAt(place, `the SRAT checksum is wrong: its bytes sum to ${hex(sum)}, not 0`);
  const wideDomains = bytes[8]! >= FIRST_REVISION_WITH_WIDE_DOMAINS;
  const structures: AffinityStructure[] = [];
  for (let at = HEADER_BYTES; at < length; ) {
    const size = at + 1 < length ? bytes[at + 1]! : 0;
    const expected = LENGTHS[bytes[at]!] ?? size;
    if (size < 2 || size < expected || at + size > length) {
      throw inputErrorAt(place, `the SRAT structure at offset ${hex(at)} has the wrong length ${size}`);
    }
    const structure = readStructure(
      new DataView(view.buffer, view.byteOffset + at, size),
      wideDomains,
      place,
    );
    if (structure !== undefined) structures.push(structure);
    at += size;
  }
  return structures;
}

function readStructure(view: DataView, wideDomains: boolean, place: Place): AffinityStructure | undefined {
  const u32 = (offset: number): number => view.getUint32(offset, true);
  const u64 = (offset: number): number => u32(offset) + u32(offset + 4) * 2 ** 32;
  const type = view.getUint8(0);
  if (type === 0) {
    const high = wideDomains ? view.getUint16(9, true) + view.getUint8(11) * 2 ** 16 : 0;
    const proximityDomain = view.getUint8(2) + high * 2 ** 8;
    return { type: 'apic', proximityDomain, apicId: view.getUint8(3), flags: u32(4) };
  }
  if (type === 1) {
    const proximityDomain = wideDomains ? u32(2) : view.getUint8(2);
    return { type: 'memory', proximityDomain, base: u64(8), length: u64(16), flags: u32(28), place };
  }
  if (type === 2) return { type: 'x2apic', proximityDomain: u32(4), apicId: u32(8), flags: u32(12) };
  return undefined;
}
