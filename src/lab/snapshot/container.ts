/**
 * The file of a saved host: a header that tells what it is and whether it is whole, then gzip of the state. All
 * numbers are little endian.
 *
 * | bytes | header |
 * |---|---|
 * | 0..7 | `TDXLABHS` |
 * | 8..11 | format |
 * | 12..15 | bytes after the header |
 * | 16..47 | SHA-256 of them |
 *
 * The state is the length of its JSON text (8 bytes), the text, zeroes up to a multiple of 8, the binary part.
 */
import { createHash } from 'node:crypto';
import { gunzipSync, gzipSync } from 'node:zlib';
import { InputError } from '../../abi/input-error.ts';
import { type PackedData, packData, unpackData } from './plain-data.ts';

const MAGIC = new TextEncoder().encode('TDXLABHS');
/** Raised whenever the state of any class changes its shape; files of other formats are refused. @internal */
export const SAVED_HOST_FORMAT = 3;
const FORMAT_OFFSET = 8;
const LENGTH_OFFSET = 12;
const HASH_OFFSET = 16;
const HEADER_BYTES = 48;
/** Bytes before the JSON text, and what the parts are aligned to. */
const ALIGNMENT = 8;
/** Saved machines are mostly zeroes and repetition: a higher level takes longer and gains a few percent. */
const GZIP_LEVEL = 4;

/** True when `bytes` begin as a saved host does, whole or not. @public */
export function isSavedHost(bytes: Uint8Array): boolean {
  return bytes.length >= MAGIC.length && MAGIC.every((byte, i) => byte === bytes[i]);
}

/** @internal */
export function encodeContainer(state: unknown): Uint8Array {
  const body = gzipSync(joinParts(packData(state)), { level: GZIP_LEVEL });
  const file = new Uint8Array(HEADER_BYTES + body.length);
  const view = new DataView(file.buffer);
  file.set(MAGIC);
  view.setUint32(FORMAT_OFFSET, SAVED_HOST_FORMAT, true);
  view.setUint32(LENGTH_OFFSET, body.length, true);
  file.set(sha256(body), HASH_OFFSET);
  file.set(body, HEADER_BYTES);
  return file;
}

/** Throws InputError for bytes that are no saved host, cut, damaged or of another format; `name` is how it calls them. @internal */
export function decodeContainer(file: Uint8Array, name: string): unknown {
  if (!isSavedHost(file)) throw new InputError(`${name}: not a saved host; make one with --save`);
  if (file.length < HEADER_BYTES)
    throw new InputError(`${name}: cut short, only ${file.length} bytes of it are there`);
  const view = new DataView(file.buffer, file.byteOffset);
  const format = view.getUint32(FORMAT_OFFSET, true);
  if (format !== SAVED_HOST_FORMAT) {
    const age = format < SAVED_HOST_FORMAT ? 'an older' : 'a newer';
    throw new InputError(
      `${name}: saved by ${age} tdxlab (format ${format}, this one reads ${SAVED_HOST_FORMAT}); save it again with this one`,
    );
  }
  const body = file.subarray(HEADER_BYTES);
  const length = view.getUint32(LENGTH_OFFSET, true);
  if (body.length < length) {
    throw new InputError(
      `${name}: cut short, ${length - body.length} of ${HEADER_BYTES + length} bytes are missing`,
    );
  }
  const isWhole = body.length === length && sha256(body).every((byte, i) => byte === file[HASH_OFFSET + i]);
  if (!isWhole) {
    throw new InputError(`${name}: damaged, its contents do not match their checksum`);
  }
  return unpackData(splitParts(gunzipSync(body)));
}

function joinParts({ json, bytes }: PackedData): Uint8Array {
  const text = new TextEncoder().encode(json);
  const start = Math.ceil((ALIGNMENT + text.length) / ALIGNMENT) * ALIGNMENT;
  const whole = new Uint8Array(start + bytes.length);
  new DataView(whole.buffer).setBigUint64(0, BigInt(text.length), true);
  whole.set(text, ALIGNMENT);
  whole.set(bytes, start);
  return whole;
}

function splitParts(inflated: Buffer): PackedData {
  // A Buffer's `slice` does not copy, so it goes no further.
  const whole = new Uint8Array(inflated.buffer, inflated.byteOffset, inflated.length);
  const view = new DataView(whole.buffer, whole.byteOffset);
  const end = ALIGNMENT + Number(view.getBigUint64(0, true));
  return {
    json: new TextDecoder().decode(whole.subarray(ALIGNMENT, end)),
    bytes: whole.subarray(Math.ceil(end / ALIGNMENT) * ALIGNMENT),
  };
}

function sha256(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}
