/** Files of a machine by their absolute paths, wherever they are kept: on the machine, in a directory, in an archive. */
import {
  accessSync,
  closeSync,
  constants,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  statSync,
} from 'node:fs';
import { join, sep } from 'node:path';
import { ABSENT_FILE, attempt, type Reading } from './reading.ts';

/** What a user may do with a file or device; `none` where there is none. @public */
export type Access = 'none' | 'denied' | 'read' | 'read-write';

/** @internal */
export interface FileTree {
  readonly read: (path: string) => Reading<Uint8Array>;
  /** Names in a directory, sorted; empty where there is none or it may not be read. */
  readonly list: (path: string) => readonly string[];
  readonly access: (path: string) => Access;
}

/** Larger files are none of those that are read here. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;
/** Directories of a machine that are listed have far fewer names. */
const MAX_NAMES = 65_536;

/** The files below a directory; links that lead out of it count as absent, since they are of another machine. @internal */
export class DirectoryTree implements FileTree {
  readonly #root: string;

  /** Throws an errno error when there is no such directory. */
  constructor(root: string) {
    this.#root = realpathSync(root);
  }

  read(path: string): Reading<Uint8Array> {
    const reading = attempt(() => {
      const place = this.#inside(path);
      // Opening a pipe would wait for a writer, and reading a device may act on it.
      return place !== undefined && statSync(place).isFile() ? readFile(place) : undefined;
    });
    if (reading.state !== 'read') return reading;
    const { value } = reading;
    if (value === undefined) return ABSENT_FILE;
    return typeof value === 'string' ? { state: 'failed', why: value } : { state: 'read', value };
  }

  list(path: string): readonly string[] {
    const names = attempt(() => {
      const place = this.#inside(path);
      return place === undefined ? [] : readdirSync(place);
    });
    return names.state === 'read' ? names.value.sort().slice(0, MAX_NAMES) : [];
  }

  access(path: string): Access {
    const place = attempt(() => this.#inside(path));
    if (place.state === 'denied') return 'denied';
    if (place.state !== 'read' || place.value === undefined) return 'none';
    const may = (mode: number): boolean => attempt(() => accessSync(place.value!, mode)).state === 'read';
    if (!may(constants.R_OK)) return 'denied';
    return may(constants.W_OK) ? 'read-write' : 'read';
  }

  #inside(path: string): string | undefined {
    const place = realpathSync(join(this.#root, path));
    const root = this.#root.endsWith(sep) ? this.#root : this.#root + sep;
    return place.startsWith(root) ? place : undefined;
  }
}

/** The bytes, or why they are not taken. Files in /proc have no size, so it is read to the end. */
function readFile(place: string): Uint8Array | string {
  const descriptor = openSync(place, 'r');
  try {
    const parts: Uint8Array[] = [];
    let size = 0;
    for (;;) {
      const part = new Uint8Array(65_536);
      const count = readSync(descriptor, part);
      if (count === 0) return Buffer.concat(parts, size);
      parts.push(part.subarray(0, count));
      size += count;
      if (size > MAX_FILE_BYTES) return `it is over ${MAX_FILE_BYTES / 2 ** 20} MiB`;
    }
  } finally {
    closeSync(descriptor);
  }
}

/** Files that are in memory, as those of an unpacked archive. @internal */
export class MemoryTree implements FileTree {
  readonly #files: ReadonlyMap<string, Uint8Array>;
  readonly #names = new Map<string, Set<string>>();

  constructor(files: ReadonlyMap<string, Uint8Array>) {
    this.#files = files;
    for (const path of files.keys()) {
      for (let end = path.lastIndexOf('/'); end >= 0; end = path.lastIndexOf('/', end - 1)) {
        const folder = path.slice(0, end);
        const name = path.slice(end + 1).split('/')[0]!;
        const names = this.#names.get(folder);
        if (names === undefined) this.#names.set(folder, new Set([name]));
        else names.add(name);
        if (end === 0) break;
      }
    }
  }

  read(path: string): Reading<Uint8Array> {
    const value = this.#files.get(path);
    return value === undefined ? ABSENT_FILE : { state: 'read', value };
  }

  list(path: string): readonly string[] {
    return [...(this.#names.get(path) ?? [])].sort().slice(0, MAX_NAMES);
  }

  access(path: string): Access {
    return this.#files.has(path) ? 'read-write' : 'none';
  }
}
