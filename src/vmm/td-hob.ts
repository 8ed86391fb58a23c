/** The TD HOB: the list by which a TD's firmware learns what memory it has (docs/rules/tdvf.md, guest facts 2.3). */
import { type AddressRange, contains, GIB, hex, isAligned, overlaps, PAGE_4K } from '../abi/address.ts';
import { InputError } from '../abi/input-error.ts';
import { byStart, subtract } from '../abi/ranges.ts';
import type { TdvfImage } from './tdvf/image.ts';
import { isAdded, memoryOf, sectionRule, sectionsOf, sectionTitle } from './tdvf/section.ts';

/** Types of HOBs and of the resources they describe (UEFI PI specification, volume 3). */
const HOB = { handoff: 1, resource: 3, end: 0xffff } as const;
const RESOURCE = { systemMemory: 0, unaccepted: 7 } as const;
/** Present, initialised, tested: what QEMU says of all memory. */
const ATTRIBUTES = 7;
const HANDOFF_VERSION = 9;

const HEADER_BYTES = 8;
const HANDOFF_BYTES = 56;
const RESOURCE_BYTES = 48;
/** Offset of the address behind the list in the handoff HOB. */
const HANDOFF_END_AT = 48;
/** Offset of a resource's type; attributes, start and length follow. */
const RESOURCE_TYPE_AT = 24;

const FOUR_GIB = 4 * GIB;
/** QEMU's q35 keeps this much below 4 GiB, or with a TD of at least 2.75 GiB only 2 GiB. */
const Q35_LOW = 0xb000_0000;
const Q35_LOW_OF_MANY = 0x8000_0000;

/** Memory that a TD can use, and whether the VMM added it, so that the guest need not accept it. @public */
export interface TdMemory extends AddressRange {
  readonly added: boolean;
}

/**
 * Where QEMU's q35 puts `bytes` bytes of guest memory: below the hole for devices, and the rest from 4 GiB. Throws
 * InputError for a size that is no multiple of 4 KiB.
 * @public
 */
export function q35Memory(bytes: number): AddressRange[] {
  if (bytes <= 0 || !isAligned(bytes, PAGE_4K)) {
    throw new InputError(`a TD's memory is a multiple of 4 KiB, not ${bytes} bytes`);
  }
  const low = bytes >= Q35_LOW ? Q35_LOW_OF_MANY : bytes;
  const ranges = [
    { start: 0, end: low },
    { start: FOUR_GIB, end: FOUR_GIB + bytes - low },
  ];
  return ranges.filter(({ start, end }) => start < end);
}

/**
 * The guest's memory, ascending: every section added to it, and between them what the guest must accept. Firmware that
 * lies outside the memory, right below 4 GiB, is not part of it. Throws InputError for other sections outside.
 * @public
 */
export function describeMemory(image: TdvfImage, memory: readonly AddressRange[]): TdMemory[] {
  const added: AddressRange[] = [];
  for (const section of image.sections.filter(isAdded)) {
    const range = memoryOf(section);
    if (memory.some((part) => contains(part, range))) added.push(range);
    else if (sectionRule(section)?.source !== 'file' || memory.some((part) => overlaps(part, range))) {
      throw new InputError(
        `${image.name}: ${sectionTitle(section)} at ${hex(range.start)} does not lie in the TD's memory; give the TD more`,
      );
    }
  }
  return [
    ...added.map((range) => ({ ...range, added: true })),
    ...subtract(memory, added).map((range) => ({ ...range, added: false })),
  ].sort(byStart);
}

/**
 * The HOB list for the image's TD_HOB section: handoff, a resource for each range of memory, end. Throws InputError
 * when the image has no such section or no room in it.
 * @public
 */
export function buildTdHob(image: TdvfImage, memory: readonly AddressRange[]): Uint8Array {
  const section = sectionsOf(image.sections, 'TD_HOB')[0];
  if (section === undefined) throw new InputError(`${image.name}: there is no TD_HOB section for a HOB list`);
  const resources = describeMemory(image, memory);
  const length = HANDOFF_BYTES + RESOURCE_BYTES * resources.length + HEADER_BYTES;
  if (length > section.memoryBytes) {
    throw new InputError(
      `${image.name}: ${sectionTitle(section)} has ${section.memoryBytes} bytes, too few for a list of ${length}`,
    );
  }
  const list = new DataView(new ArrayBuffer(length));
  putHeader(list, 0, HOB.handoff, HANDOFF_BYTES);
  list.setUint32(HEADER_BYTES, HANDOFF_VERSION, true);
  list.setBigUint64(HANDOFF_END_AT, BigInt(section.address + length), true);
  resources.forEach((resource, i) => {
    putResource(list, HANDOFF_BYTES + RESOURCE_BYTES * i, resource);
  });
  putHeader(list, length - HEADER_BYTES, HOB.end, HEADER_BYTES);
  return new Uint8Array(list.buffer);
}

function putHeader(list: DataView, at: number, type: number, length: number): void {
  list.setUint16(at, type, true);
  list.setUint16(at + 2, length, true);
}

/** The owner's GUID is zero. */
function putResource(list: DataView, at: number, { start, end, added }: TdMemory): void {
  putHeader(list, at, HOB.resource, RESOURCE_BYTES);
  const type = added ? RESOURCE.systemMemory : RESOURCE.unaccepted;
  list.setUint32(at + RESOURCE_TYPE_AT, type, true);
  list.setUint32(at + RESOURCE_TYPE_AT + 4, ATTRIBUTES, true);
  list.setBigUint64(at + RESOURCE_TYPE_AT + 8, BigInt(start), true);
  list.setBigUint64(at + RESOURCE_TYPE_AT + 16, BigInt(end - start), true);
}
