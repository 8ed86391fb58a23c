/** The way in: names of files or bytes go in, the survey of one machine comes out. */
import { InputError } from '../abi/input-error.ts';
import type { Evidence } from './evidence.ts';
import { mergeEvidence } from './merge-evidence.ts';
import { readSource } from './read-source.ts';
import type { Survey } from './survey.ts';

/** Bytes of a log, map, table or description, compressed or not; `name` is how errors and notes call them. @public */
export interface Source {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** The survey of the machine that the sources are of. Throws InputError for unusable input. @public */
export async function readHost(sources: readonly Source[]): Promise<Survey> {
  const evidence: Evidence[] = [];
  for (const { name, bytes } of sources) evidence.push(await readSource(name, [bytes]));
  return mergeEvidence(evidence);
}

/**
 * The survey of the machine that the files are of; `-` is standard input, and a name that no file has may be an
 * embedded host's. Files are read as streams. Throws InputError for unusable input and unreadable files.
 * @public
 */
export async function readHostFiles(paths: readonly string[]): Promise<Survey> {
  if (paths.filter((path) => path === '-').length > 1) {
    throw new InputError('standard input (-) can be read only once');
  }
  const evidence: Evidence[] = [];
  for (const path of paths) evidence.push(await readPath(path));
  return mergeEvidence(evidence);
}

async function readPath(path: string): Promise<Evidence> {
  if (path === '-') return readSource('standard input', process.stdin);
  const { createReadStream } = await import('node:fs');
  try {
    return await readSource(path, createReadStream(path, { highWaterMark: 1024 * 1024 }));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof InputError || code === undefined) throw error;
    const embedded = code === 'ENOENT' ? await embeddedEvidence(path) : undefined;
    if (embedded !== undefined) return embedded;
    throw new InputError(`${path}: ${WHY[code] ?? `cannot be read (${code})`}`);
  }
}

const WHY: Readonly<Record<string, string>> = {
  EISDIR: 'is a directory; name a file in it',
  ENOENT: 'there is no such file and no embedded host of this name',
  EACCES: 'may not be read by this user',
};

async function embeddedEvidence(name: string): Promise<Evidence | undefined> {
  const { EMBEDDED_HOSTS, evidenceOf } = await import('./embedded/hosts.ts');
  const host = EMBEDDED_HOSTS.get(name);
  return host === undefined ? undefined : evidenceOf(host);
}
