/** Puts a collection into files. */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { InputError } from '../../abi/input-error.ts';
import type { Collection } from './collection.ts';
import { COLLECTION_FILES } from './stored-host.ts';
import { packTar } from './tar.ts';

/** What is in a collection, as its manifest says. @public */
export interface Manifest {
  readonly format: 'tdxlab collection 1';
  readonly platform: string;
  /** Bytes of every file kept. */
  readonly files: Readonly<Record<string, number>>;
  readonly missing: Readonly<Record<string, { readonly state: string; readonly why: string }>>;
  readonly presences: Readonly<Record<string, string>>;
  /** Why there is no log, where there is none. */
  readonly log?: { readonly state: string; readonly why: string };
}

/** @public */
export function manifestOf({ platform, files, missing, presences, log }: Collection): Manifest {
  return {
    format: 'tdxlab collection 1',
    platform,
    files: Object.fromEntries([...files].map(([path, bytes]) => [path, bytes.length])),
    missing: Object.fromEntries(missing),
    presences: Object.fromEntries(presences),
    ...(log.state === 'read' ? {} : { log }),
  };
}

/** Every file of the collection by its path in the tree or archive, without a leading slash. */
function filesToWrite(collection: Collection): Map<string, Uint8Array> {
  const { files, log, msrs, probes } = collection;
  const json = (value: unknown): Uint8Array =>
    new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
  const values = [...msrs].map(([name, reading]) => [
    name,
    reading.state === 'read' ? `0x${reading.value.toString(16)}` : reading,
  ]);
  const all: [string, Uint8Array][] = [
    [COLLECTION_FILES.manifest, json(manifestOf(collection))],
    ...(log.state === 'read'
      ? [[COLLECTION_FILES.log, new TextEncoder().encode(log.value)] as [string, Uint8Array]]
      : []),
    [COLLECTION_FILES.msrs, json(Object.fromEntries(values))],
    [COLLECTION_FILES.probes, json(probes)],
    ...files,
  ];
  return new Map(all.map(([path, bytes]) => [path.slice(1), bytes]));
}

/**
 * Writes the collection to `out`: an archive where the name ends in .tar.gz or .tgz, otherwise a directory, which must
 * be new or empty. Throws InputError when something is there already or it cannot be written.
 * @public
 */
export function writeCollection(collection: Collection, out: string): void {
  const files = filesToWrite(collection);
  const archive = /\.(?:tar\.gz|tgz)$/.test(out);
  try {
    if (archive) writeArchive(out, files);
    else writeTree(out, files);
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`cannot write ${out}: ${(error as Error).message}`);
  }
}

function writeArchive(out: string, files: ReadonlyMap<string, Uint8Array>): void {
  if (existsSync(out)) throw new InputError(`${out}: there is one already; name another with --out`);
  const partial = `${out}.partial`;
  try {
    writeFileSync(partial, gzipSync(packTar(files)));
    renameSync(partial, out);
  } finally {
    rmSync(partial, { force: true });
  }
}

function writeTree(out: string, files: ReadonlyMap<string, Uint8Array>): void {
  if (existsSync(out) && readdirSync(out).length > 0)
    throw new InputError(`${out}: this directory is not empty; name a new one with --out`);
  for (const [path, bytes] of files) {
    const place = join(out, path);
    mkdirSync(dirname(place), { recursive: true });
    writeFileSync(place, bytes);
  }
}
