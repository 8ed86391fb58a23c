/** Saved hosts on disk. */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { formatBytes } from '../abi/format-bytes.ts';
import { InputError } from '../abi/input-error.ts';
import type { Host } from '../lab/host.ts';
import { isSavedHost } from '../lab/snapshot/container.ts';
import { loadHost, saveHost } from '../lab/snapshot/save-host.ts';
import type { Io } from './io.ts';

/** Writes the host to `path`, which has its name only once it is whole. Throws InputError. @internal */
export function writeSavedHost(path: string, host: Pick<Host, 'machine' | 'kernel'>, io: Io): void {
  const bytes = saveHost(host);
  const partial = `${path}.partial`;
  try {
    writeFileSync(partial, bytes);
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw new InputError(`cannot write ${path}: ${(error as Error).message}`);
  }
  io.err(`saved to ${path} (${formatBytes(bytes.length)}); look at it with tdxlab inspect ${path}`);
}

/** The host saved in the file `path`; null where there is no such file, or one of another kind. Throws InputError. @internal */
export function readSavedHost(path: string): Host | null {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch {
    // Whoever reads it as a description says what is wrong with it.
    return null;
  }
  return isSavedHost(bytes) ? loadHost(bytes, path) : null;
}
