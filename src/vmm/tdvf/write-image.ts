/** Assembles TDVF images: what `readTdvf` takes apart. */
import {
  METADATA_OFFSET_GUID,
  TABLE_FOOTER_GUID,
  TDVF_LAYOUT,
  TDVF_SIGNATURE,
  TDVF_VERSION,
} from './image.ts';
import type { TdvfSection } from './section.ts';

/** An entry of the table holds the distance of the descriptor from the end of the file. */
const OFFSET_BYTES = 4;

/** Writes the section table into an image, its table of GUIDs leading to it; returns where the table begins. @public */
export function putTdvfMetadata(bytes: Uint8Array, sections: readonly Omit<TdvfSection, 'index'>[]): number {
  const { tail, entryEnd, descriptor, section } = TDVF_LAYOUT;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const footer = bytes.length - tail - entryEnd;
  const entry = footer - entryEnd - OFFSET_BYTES;
  const length = descriptor + section * sections.length;
  const start = entry - length;
  view.setUint32(start, TDVF_SIGNATURE, true);
  view.setUint32(start + 4, length, true);
  view.setUint32(start + 8, TDVF_VERSION, true);
  view.setUint32(start + 12, sections.length, true);
  sections.forEach((fields, i) => {
    const at = start + descriptor + section * i;
    view.setUint32(at, fields.fileOffset, true);
    view.setUint32(at + 4, fields.fileBytes, true);
    view.setBigUint64(at + 8, BigInt(fields.address), true);
    view.setBigUint64(at + 16, BigInt(fields.memoryBytes), true);
    view.setUint32(at + 24, fields.type, true);
    view.setUint32(at + 28, fields.attributes, true);
  });
  view.setUint32(entry, bytes.length - start, true);
  view.setUint16(entry + OFFSET_BYTES, OFFSET_BYTES + entryEnd, true);
  bytes.set(METADATA_OFFSET_GUID, entry + OFFSET_BYTES + 2);
  view.setUint16(footer, OFFSET_BYTES + 2 * entryEnd, true);
  bytes.set(TABLE_FOOTER_GUID, footer + 2);
  return start;
}
