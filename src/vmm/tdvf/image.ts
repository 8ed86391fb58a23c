/** Reads TDVF images: firmware that tells by a table how a VMM makes a TD of it (docs/rules/tdvf.md). */
import { hex } from '../../abi/address.ts';
import { InputError } from '../../abi/input-error.ts';
import { guidBytes } from '../guid.ts';
import type { TdvfSection } from './section.ts';

/** A TDVF image and its section table. @public */
export interface TdvfImage {
  /** What to call it in messages: mostly the name of the file. */
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Where the descriptor begins in the file. */
  readonly descriptorOffset: number;
  /** How it was found: through the table of GUIDs, or as in older images by the offset near the end of the file. */
  readonly foundBy: 'guid-table' | 'pointer';
  readonly sections: readonly TdvfSection[];
}

/** Layout of images: distances from the end of the file, and entries, in bytes. @internal */
export const TDVF_LAYOUT = {
  /** What lies behind the table of GUIDs: the reset vector, and in older images the offset of the descriptor. */
  tail: 0x20,
  guid: 16,
  /** Behind the data of each entry of the table: its length (16 bits) and its GUID. */
  entryEnd: 18,
  descriptor: 16,
  section: 32,
} as const;

/** @internal */
export const TABLE_FOOTER_GUID = guidBytes('96b582de-1fb2-45f7-baea-a366c55a082d');
/** @internal */
export const METADATA_OFFSET_GUID = guidBytes('e47a6535-984a-4798-865e-4685a7bf8ec2');
/** 'TDVF'. @internal */
export const TDVF_SIGNATURE = 0x4656_4454;
/** @internal */
export const TDVF_VERSION = 1;
/** Entry of the table that leads to the descriptor: its distance from the end of the file (32 bits). */
const OFFSET_ENTRY_BYTES = 22;
/** No guest physical address has more bits. */
const ADDRESS_LIMIT = 2n ** 52n;

/** Reads the image `name`. Throws InputError for what is no TDVF image, or one whose table cannot be read. @public */
export function readTdvf(name: string, bytes: Uint8Array): TdvfImage {
  const { tail, guid } = TDVF_LAYOUT;
  if (bytes.length < tail + guid) {
    throw new InputError(`${name}: not a TDVF image: ${bytes.length} bytes are too few for any firmware`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const { descriptorOffset, foundBy } = findDescriptor(name, bytes, view);
  return { name, bytes, descriptorOffset, foundBy, sections: readSections(name, view, descriptorOffset) };
}

function findDescriptor(
  name: string,
  bytes: Uint8Array,
  view: DataView,
): Pick<TdvfImage, 'descriptorOffset' | 'foundBy'> {
  const hasTable = hasGuidAt(bytes, bytes.length - TDVF_LAYOUT.tail, TABLE_FOOTER_GUID);
  const fromEnd = hasTable ? findOffsetEntry(name, bytes, view) : undefined;
  if (fromEnd !== undefined) {
    const descriptorOffset = bytes.length - fromEnd;
    if (isDescriptorAt(view, descriptorOffset)) return { descriptorOffset, foundBy: 'guid-table' };
    throw new InputError(
      `${name}: its table of GUIDs puts the TDX metadata ${hex(fromEnd)} bytes before the end of the file, ` +
        `where there is none; the image is damaged or incomplete`,
    );
  }
  const pointer = view.getUint32(bytes.length - TDVF_LAYOUT.tail, true);
  if (isDescriptorAt(view, pointer)) return { descriptorOffset: pointer, foundBy: 'pointer' };
  throw new InputError(
    hasTable
      ? `${name}: firmware without TDX metadata: its table of GUIDs has no entry for it, so no TD can be made of it`
      : `${name}: not a TDVF image: nothing at its end leads to TDX metadata; give the firmware file that a TD boots, such as OVMF.fd`,
  );
}

/** What the entry for TDX metadata says, walking the table backwards from its footer. */
function findOffsetEntry(name: string, bytes: Uint8Array, view: DataView): number | undefined {
  const { tail, entryEnd } = TDVF_LAYOUT;
  const tableEnd = bytes.length - tail;
  const tableBytes = view.getUint16(tableEnd - entryEnd, true);
  const tableStart = tableEnd - tableBytes;
  const broken = (at: number): InputError =>
    new InputError(
      `${name}: the table of GUIDs that ends at ${hex(tableEnd)} is broken: no entry can have the length given at ${hex(at)}`,
    );
  if (tableBytes < entryEnd || tableStart < 0) throw broken(tableEnd - entryEnd);
  let end = tableEnd - entryEnd;
  while (end - entryEnd >= tableStart) {
    const length = view.getUint16(end - entryEnd, true);
    if (length < entryEnd || end - length < tableStart) throw broken(end - entryEnd);
    if (hasGuidAt(bytes, end, METADATA_OFFSET_GUID)) {
      if (length !== OFFSET_ENTRY_BYTES) throw broken(end - entryEnd);
      return view.getUint32(end - length, true);
    }
    end -= length;
  }
  return undefined;
}

/** True when `guid` stands right before `end`. */
function hasGuidAt(bytes: Uint8Array, end: number, guid: Uint8Array): boolean {
  return guid.every((byte, i) => bytes[end - guid.length + i] === byte);
}

function isDescriptorAt(view: DataView, offset: number): boolean {
  const fits = offset >= 0 && offset + TDVF_LAYOUT.descriptor <= view.byteLength;
  return fits && view.getUint32(offset, true) === TDVF_SIGNATURE;
}

function readSections(name: string, view: DataView, descriptorOffset: number): TdvfSection[] {
  const { descriptor, section } = TDVF_LAYOUT;
  const [length, version, count] = [4, 8, 12].map((at) => view.getUint32(descriptorOffset + at, true)) as [
    number,
    number,
    number,
  ];
  const where = `${name}: TDX metadata at ${hex(descriptorOffset)}`;
  if (version !== TDVF_VERSION) {
    throw new InputError(`${where} has version ${version}; only version ${TDVF_VERSION} is defined`);
  }
  if (count === 0) throw new InputError(`${where} lists no section`);
  if (length !== descriptor + section * count) {
    throw new InputError(
      `${where} gives its length as ${length} bytes, but ${count} sections make it ${descriptor + section * count}`,
    );
  }
  if (descriptorOffset + length > view.byteLength) {
    throw new InputError(
      `${where} lists ${count} sections, more than the file has room for; the image is cut short`,
    );
  }
  return Array.from({ length: count }, (_, index) =>
    readSection(where, view, index, descriptorOffset + descriptor + section * index),
  );
}

function readSection(where: string, view: DataView, index: number, at: number): TdvfSection {
  const u32 = (offset: number): number => view.getUint32(at + offset, true);
  const u64 = (offset: number, field: string): number => {
    const value = view.getBigUint64(at + offset, true);
    if (value < ADDRESS_LIMIT) return Number(value);
    throw new InputError(
      `${where}: section ${index}: ${field} ${hex(value)} is beyond any guest physical address`,
    );
  };
  return {
    index,
    type: u32(24),
    fileOffset: u32(0),
    fileBytes: u32(4),
    address: u64(8, 'memory address'),
    memoryBytes: u64(16, 'memory size'),
    attributes: u32(28),
  };
}
