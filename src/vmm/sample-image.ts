/** A small TDVF image for examples and tests, laid out like OVMF: it starts a TD that waits. */
import { KIB, MIB } from '../abi/address.ts';
import { readTdvf, type TdvfImage } from './tdvf/image.ts';
import { SECTION_ATTRIBUTE, SECTION_TYPE } from './tdvf/section.ts';
import { putTdvfMetadata } from './tdvf/write-image.ts';

/** What the sample is called where an image is named. @public */
export const SAMPLE_IMAGE = 'sample';

const IMAGE_BYTES = 64 * KIB;
const VARIABLES_BYTES = 16 * KIB;
/** The image ends at 4 GiB, so that its last 16 bytes are the reset vector. */
const BASE = 0x1_0000_0000 - IMAGE_BYTES;
/** Erased flash. */
const ERASED = 0xff;
/** At the reset vector: PAUSE, and a jump back to it. */
const WAIT = Uint8Array.of(0xf3, 0x90, 0xeb, 0xfc);
const RESET_VECTOR = IMAGE_BYTES - 16;

const IN_MEMORY = { fileOffset: 0, fileBytes: 0, attributes: 0 } as const;

const SECTIONS = [
  {
    type: SECTION_TYPE.BFV,
    fileOffset: VARIABLES_BYTES,
    fileBytes: IMAGE_BYTES - VARIABLES_BYTES,
    address: BASE + VARIABLES_BYTES,
    memoryBytes: IMAGE_BYTES - VARIABLES_BYTES,
    attributes: SECTION_ATTRIBUTE.mrExtend,
  },
  {
    type: SECTION_TYPE.CFV,
    fileOffset: 0,
    fileBytes: VARIABLES_BYTES,
    address: BASE,
    memoryBytes: VARIABLES_BYTES,
    attributes: 0,
  },
  // Where OVMF has its stack and heap, its HOB list and its page tables.
  { ...IN_MEMORY, type: SECTION_TYPE.TempMem, address: 0x81_0000, memoryBytes: 64 * KIB },
  { ...IN_MEMORY, type: SECTION_TYPE.TD_HOB, address: 0x80_9000, memoryBytes: 8 * KIB },
  { ...IN_MEMORY, type: SECTION_TYPE.TempMem, address: 0x80_0000, memoryBytes: 24 * KIB },
  {
    ...IN_MEMORY,
    type: SECTION_TYPE.PermMem,
    address: 16 * MIB,
    memoryBytes: MIB,
    attributes: SECTION_ATTRIBUTE.pageAug,
  },
] as const;

/** Assembles the sample. The same bytes every time. @public */
export function sampleImage(): TdvfImage {
  const bytes = new Uint8Array(IMAGE_BYTES).fill(ERASED);
  bytes.set(new TextEncoder().encode('tdxlab sample TDVF\0'), VARIABLES_BYTES);
  bytes.set(WAIT, RESET_VECTOR);
  putTdvfMetadata(bytes, SECTIONS);
  return readTdvf(SAMPLE_IMAGE, bytes);
}
