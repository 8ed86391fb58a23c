/**
 * Packs and unpacks tar archives (POSIX ustar) of plain files. Archives come from strangers, so every size is checked
 * before it is used.
 */
import { InputError } from '../../abi/input-error.ts';

const BLOCK = 512;
/** Offset and length of header fields. */
const NAME = [0, 100] as const;
const MODE = [100, 8] as const;
const SIZE = [124, 12] as const;
const TIME = [136, 12] as const;
const CHECKSUM = [148, 8] as const;
const TYPE = 156;
const MAGIC = [257, 8] as const;
const PREFIX = [345, 155] as const;

/** A plain file, in the notation of today and of the first tars. */
const FILE_TYPES: ReadonlySet<string> = new Set(['0', '\0', '7']);
/** GNU tar's entry that holds the long name of the next one. */
const LONG_NAME = 'L';

const TEXT = new TextEncoder();

/** An archive of the files; the same files give the same bytes. Names have at most 100 bytes. @internal */
export function packTar(files: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (const [name, bytes] of files) {
    const header = new Uint8Array(BLOCK);
    const put = ([at]: readonly [number, number], text: string): void => header.set(TEXT.encode(text), at);
    if (TEXT.encode(name).length > NAME[1]) throw new Error(`the name ${name} is too long for a tar header`);
    put(NAME, name);
    put(MODE, '0000644\0');
    put([108, 8], '0000000\0');
    put([116, 8], '0000000\0');
    put(SIZE, `${bytes.length.toString(8).padStart(11, '0')}\0`);
    put(TIME, `${'0'.repeat(11)}\0`);
    put(MAGIC, 'ustar\x0000');
    header[TYPE] = 0x30;
    put(CHECKSUM, `${checksum(header).toString(8).padStart(6, '0')}\0 `);
    blocks.push(header, bytes, new Uint8Array((BLOCK - (bytes.length % BLOCK)) % BLOCK));
  }
  return Buffer.concat([...blocks, new Uint8Array(2 * BLOCK)]);
}

/** The plain files of an archive by their names. Throws InputError when `source` is no archive or is damaged. @internal */
export function unpackTar(archive: Uint8Array, source: string): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  let longName: string | undefined;
  for (let at = 0; at + BLOCK <= archive.length; ) {
    const header = archive.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) return files;
    const size = octal(header, SIZE);
    const end = at + BLOCK + size;
    if (octal(header, CHECKSUM) !== checksum(header) || !(end <= archive.length)) {
      throw new InputError(`${source}: not a tar archive, or damaged at byte ${at}`);
    }
    const contents = archive.subarray(at + BLOCK, end);
    const type = String.fromCharCode(header[TYPE]!);
    if (type === LONG_NAME) longName = text(contents);
    else {
      if (FILE_TYPES.has(type)) files.set(longName ?? nameOf(header), contents);
      longName = undefined;
    }
    at = Math.ceil(end / BLOCK) * BLOCK;
  }
  if (files.size > 0) return files;
  throw new InputError(`${source}: not a tar archive, or an empty one`);
}

function nameOf(header: Uint8Array): string {
  const field = ([at, length]: readonly [number, number]): string => text(header.subarray(at, at + length));
  const prefix = field(MAGIC).startsWith('ustar') ? field(PREFIX) : '';
  return prefix === '' ? field(NAME) : `${prefix}/${field(NAME)}`;
}

function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** NaN for what is no octal number. */
function octal(header: Uint8Array, [at, length]: readonly [number, number]): number {
  const digits = text(header.subarray(at, at + length)).trim();
  return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : Number.NaN;
}

/** Sum of the header's bytes, its own field counting as blanks. */
function checksum(header: Uint8Array): number {
  const [start, length] = CHECKSUM;
  return header.reduce((sum, byte, i) => sum + (i >= start && i < start + length ? 0x20 : byte), 0);
}
