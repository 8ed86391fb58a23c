/** What was collected of another machine: a collection as a directory or an archive, or the root of its file system. */
import { readFileSync, statSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import * as v from 'valibot';
import { InputError } from '../../abi/input-error.ts';
import type { HostSource } from './collection.ts';
import { type Access, DirectoryTree, type FileTree, MemoryTree } from './file-tree.ts';
import { MSR_NAMES, type MsrReadings } from './msrs.ts';
import type { Probes } from './probes.ts';
import type { Missing, Reading } from './reading.ts';
import { unpackTar } from './tar.ts';

/** Files of a collection beside those of the machine. @internal */
export const COLLECTION_FILES = {
  manifest: '/manifest.json',
  log: '/kernel.log',
  msrs: '/msr.json',
  probes: '/probes.json',
} as const;

/** Where a log may be: in a collection, as `dmesg > dmesg` leaves it, as a distribution saves it. */
const LOGS = [COLLECTION_FILES.log, '/dmesg', '/var/log/dmesg'];

/** An archive unpacks to at most this; real ones have a few MiB. */
const MAX_ARCHIVE_BYTES = 256 * 1024 * 1024;

const MISSING = v.object({ state: v.picklist(['absent', 'denied', 'failed']), why: v.string() });
const ACCESS = v.picklist(['none', 'denied', 'read', 'read-write']);

const MANIFEST = v.object({
  platform: v.string(),
  missing: v.record(v.string(), MISSING),
  presences: v.record(v.string(), ACCESS),
  log: v.optional(MISSING),
});

const MSRS = v.record(v.string(), v.union([v.pipe(v.string(), v.regex(/^0x[0-9a-f]{1,16}$/i)), MISSING]));

const PROBES = v.object({
  vmTypes: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 31 - 1))),
  askedBy: v.optional(v.string()),
  qemu: v.optional(v.string()),
});

/** The machine whose files are at `path`. Throws InputError when there is neither a directory nor an archive. @internal */
export function storedHost(path: string): HostSource {
  const tree = openTree(path);
  const manifest = parseJson(tree, COLLECTION_FILES.manifest, MANIFEST);
  const missing = new Map<string, Missing>(Object.entries(manifest?.missing ?? {}));
  const presences = new Map<string, Access>(Object.entries(manifest?.presences ?? {}));
  const unread = new MemoryTree(new Map([...missing.keys()].map((path) => [path, new Uint8Array(0)])));
  const stored: FileTree = {
    read(path) {
      const reading = tree.read(path);
      return reading.state === 'absent' ? (missing.get(path) ?? reading) : reading;
    },
    list: (path) => [...new Set([...tree.list(path), ...unread.list(path)])].sort(),
    access: (path) => presences.get(path) ?? tree.access(path),
  };
  return {
    platform: manifest?.platform ?? 'linux',
    tree: stored,
    kernelLog: () => readLog(tree, manifest?.log),
    msrs: () => readMsrFile(tree),
    probes: () => (parseJson(tree, COLLECTION_FILES.probes, PROBES) ?? {}) as Probes,
  };
}

function openTree(path: string): FileTree {
  const entry = statSync(path, { throwIfNoEntry: false });
  if (entry === undefined) throw new InputError(`${path}: there is no such directory or archive`);
  try {
    if (entry.isDirectory()) return new DirectoryTree(path);
    if (!entry.isFile()) throw new InputError(`${path}: neither a directory nor a file`);
    if (entry.size > MAX_ARCHIVE_BYTES) throw new InputError(`${path}: too large for a collection`);
    return new MemoryTree(filesOf(unpackTar(unpack(readFileSync(path)), path)));
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`${path}: cannot read it: ${(error as Error).message}`);
  }
}

function unpack(bytes: Uint8Array): Uint8Array {
  const packed = bytes[0] === 0x1f && bytes[1] === 0x8b;
  return packed ? gunzipSync(bytes, { maxOutputLength: MAX_ARCHIVE_BYTES }) : bytes;
}

/** The files by absolute paths, without the directory that people pack together with its contents. */
function filesOf(archive: ReadonlyMap<string, Uint8Array>): Map<string, Uint8Array> {
  const paths = [...archive].map(([name, bytes]) => [`/${name.replace(/^(?:\.?\/)+/, '')}`, bytes] as const);
  const manifest = paths.find(([path]) => path.endsWith(COLLECTION_FILES.manifest))?.[0];
  const root = manifest?.slice(0, -COLLECTION_FILES.manifest.length) ?? '';
  return new Map(
    paths
      .filter(([path]) => path.startsWith(`${root}/`))
      .map(([path, bytes]) => [path.slice(root.length), bytes]),
  );
}

/** What the file holds; undefined where there is none, or it has another form. */
function parseJson<T>(tree: FileTree, path: string, schema: v.GenericSchema<unknown, T>): T | undefined {
  const reading = tree.read(path);
  if (reading.state !== 'read') return undefined;
  try {
    const parsed = v.safeParse(schema, JSON.parse(new TextDecoder().decode(reading.value)));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

function readLog(tree: FileTree, missing: Missing | undefined): Reading<string> {
  for (const path of LOGS) {
    const log = tree.read(path);
    if (log.state === 'read') return { state: 'read', value: new TextDecoder().decode(log.value) };
  }
  return missing ?? { state: 'absent', why: `there is no ${LOGS.map((path) => path.slice(1)).join(', ')}` };
}

function readMsrFile(tree: FileTree): MsrReadings {
  const values = parseJson(tree, COLLECTION_FILES.msrs, MSRS) ?? {};
  return new Map(
    MSR_NAMES.map((name) => {
      const value = values[name];
      if (value === undefined) return [name, { state: 'absent', why: 'it was not collected' }];
      return [name, typeof value === 'string' ? { state: 'read', value: BigInt(value) } : value];
    }),
  );
}
