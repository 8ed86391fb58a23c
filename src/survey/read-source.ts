/** Reads one source, telling by its content what it is: compressed or not, a table, a description, or text. */
import { InputError } from '../abi/input-error.ts';
import { type Evidence, inputErrorAt, newEvidence, showsMemory } from './evidence.ts';
import { takeAffinity } from './srat-structures.ts';
import { readSratTable } from './srat-table.ts';
import { TextReader } from './text-reader.ts';

/** Bytes as they come from a file or a pipe. @public */
export type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

type Kind = 'gzip' | 'srat' | 'machine' | 'text' | 'binary';

/** Bytes looked at to tell what a source is. */
const HEAD_BYTES = 4096;
/** Tables and descriptions are read whole; no real one is near this. */
const MAX_WHOLE_BYTES = 64 * 1024 * 1024;
/** A log may hold a few stray bytes of a crash; beyond one in ten it is no text. */
const MAX_CONTROL_SHARE = 0.1;

/**
 * What the source `name` tells. Throws InputError for empty, binary or unusable input.
 * @internal
 */
export async function readSource(name: string, chunks: Chunks, nested = false): Promise<Evidence> {
  const iterator =
    Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator]();
  try {
    return await readByKind(name, iterator, nested);
  } finally {
    await iterator.return?.();
  }
}

type Bytes = AsyncIterator<Uint8Array> | Iterator<Uint8Array>;

async function readByKind(name: string, iterator: Bytes, nested: boolean): Promise<Evidence> {
  const head = await readHead(iterator);
  const all = replay(head, iterator);
  switch (kindOf(head)) {
    case 'gzip':
      if (nested) throw new InputError(`${name}: compressed twice; decompress it first`);
      return readCompressed(name, all);
    case 'srat': {
      const evidence = newEvidence(name);
      takeAffinity(evidence, readSratTable(await readWhole(name, all), { source: name }));
      return evidence;
    }
    case 'machine': {
      // Loaded on demand: the validator is only needed here, and logs are what is read mostly.
      const { readMachineJson } = await import('./machine-json.ts');
      const machine = readMachineJson(name, new TextDecoder().decode(await readWhole(name, all)));
      return { ...newEvidence(name), machine };
    }
    case 'binary':
      throw new InputError(
        head.length === 0
          ? `${name}: empty`
          : `${name}: neither text nor a SRAT; give a kernel log, /proc/iomem, a SRAT or a machine description`,
      );
    case 'text': {
      const reader = new TextReader(name);
      for await (const bytes of all) reader.push(bytes);
      const evidence = reader.finish();
      if (showsMemory(evidence)) return evidence;
      throw inputErrorAt(
        { source: name },
        'no memory map, SRAT or CMR in it; give a whole kernel log, /proc/iomem or a SRAT',
      );
    }
  }
}

async function readHead(iterator: Bytes): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  while (size < HEAD_BYTES) {
    const next = await iterator.next();
    if (next.done) break;
    parts.push(next.value);
    size += next.value.length;
  }
  return join(parts, size);
}

/** The head again and then the rest, in pieces that bound what is decoded at a time. */
async function* replay(head: Uint8Array, iterator: Bytes): AsyncGenerator<Uint8Array> {
  yield* pieces(head);
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield* pieces(next.value);
}

const PIECE_BYTES = 1024 * 1024;

function* pieces(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) yield bytes.subarray(at, at + PIECE_BYTES);
}

function kindOf(head: Uint8Array): Kind {
  if (head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
  const start = String.fromCharCode(...head.subarray(0, 64));
  // A table's length follows its signature; `SRAT @ 0x...` and `SRAT: Node` are text.
  if (start.startsWith('SRAT') && !/^SRAT[\x20-\x7e]{4}/.test(start)) return 'srat';
  if (/^(?:\xef\xbb\xbf)?\s*\{/.test(start)) return 'machine';
  const seen = head.subarray(0, HEAD_BYTES);
  const controls = seen.reduce((count, byte) => count + (isControl(byte) ? 1 : 0), 0);
  return head.length === 0 || controls > seen.length * MAX_CONTROL_SHARE ? 'binary' : 'text';
}

/** Control characters other than white space and the escape of coloured logs. */
function isControl(byte: number): boolean {
  return byte < 0x09 || (byte > 0x0d && byte < 0x20 && byte !== 0x1b) || byte === 0x7f;
}

async function readWhole(name: string, chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const bytes of chunks) {
    parts.push(bytes);
    size += bytes.length;
    if (size > MAX_WHOLE_BYTES) throw new InputError(`${name}: over 64 MiB, too large for what it starts as`);
  }
  return join(parts, size);
}

async function readCompressed(name: string, chunks: AsyncIterable<Uint8Array>): Promise<Evidence> {
  const [{ createGunzip }, { pipeline, Readable }] = await Promise.all([
    import('node:zlib'),
    import('node:stream'),
  ]);
  // The reader of the last stream sees every error of the pipeline, so its own callback has nothing to do.
  const plain = pipeline(Readable.from(chunks), createGunzip(), () => {});
  try {
    return await readSource(name, plain, true);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (code.startsWith('Z_')) throw new InputError(`${name}: damaged or cut gzip data`);
    throw error;
  }
}

function join(parts: readonly Uint8Array[], size: number): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
