/** What was read of one machine, and what could not be. */
import { gunzipSync, gzipSync } from 'node:zlib';
import type { Access, FileTree } from './file-tree.ts';
import { ITEMS, type Item, PRESENCES } from './items.ts';
import { keepLog } from './keep.ts';
import type { MsrReadings } from './msrs.ts';
import type { Probes } from './probes.ts';
import { type Missing, type Reading, valueRead } from './reading.ts';

/** A machine to read: the one this runs on, or what was collected of another. @internal */
export interface HostSource {
  /** Operating system, as Node calls it: `linux`, `darwin`, `win32`. */
  readonly platform: string;
  readonly tree: FileTree;
  readonly kernelLog: () => Reading<string>;
  readonly msrs: () => MsrReadings;
  readonly probes: () => Probes;
}

/** @public */
export interface Collection {
  readonly platform: string;
  /** What is kept of files, by their paths on the machine, in the order of the list of items. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Files that are not among them, and why. */
  readonly missing: ReadonlyMap<string, Missing>;
  readonly presences: ReadonlyMap<string, Access>;
  /** The lines kept of the kernel's log. */
  readonly log: Reading<string>;
  readonly msrs: MsrReadings;
  readonly probes: Probes;
}

/** Configurations unpack to at most this. */
const MAX_UNPACKED = 16 * 1024 * 1024;

/** Reads everything on the list of items, and keeps of it what the list says. Never throws for what it reads. @internal */
export function collectHost(source: HostSource): Collection {
  const { tree } = source;
  const files = new Map<string, Uint8Array>();
  const missing = new Map<string, Missing>();
  const release = releaseOf(tree);
  for (const item of ITEMS) {
    for (const path of pathsOf(tree, item.path.replace('{release}', release))) {
      const reading = readItem(tree, path, item);
      if (reading.state !== 'read') missing.set(path, reading);
      // Of the many files that `*` stands for, those of which nothing is kept are left out.
      else if (reading.value.length > 0 || !item.path.includes('*')) files.set(path, reading.value);
    }
  }
  const log = source.kernelLog();
  return {
    platform: source.platform,
    files,
    missing,
    presences: new Map(PRESENCES.map((path) => [path, tree.access(path)])),
    log: log.state === 'read' ? { state: 'read', value: keepLog(log.value) } : log,
    msrs: source.msrs(),
    probes: source.probes(),
  };
}

/** The kernel's release, as long as it can be part of a file name. */
function releaseOf(tree: FileTree): string {
  const bytes = valueRead(tree.read('/proc/sys/kernel/osrelease'));
  const release = bytes === undefined ? '' : new TextDecoder().decode(bytes).trim();
  return /^[\w.+~-]{1,128}$/.test(release) ? release : 'unknown';
}

/** A path without `*` stands for itself, there or not; one with `*` for the paths there are. */
function pathsOf(tree: FileTree, pattern: string): readonly string[] {
  const star = pattern.indexOf('*');
  if (star < 0) return [pattern];
  const start = pattern.lastIndexOf('/', star);
  const end = pattern.indexOf('/', star);
  const directory = pattern.slice(0, start);
  const [before, after] = pattern.slice(start + 1, end < 0 ? undefined : end).split('*') as [string, string];
  const rest = end < 0 ? '' : pattern.slice(end);
  return tree
    .list(directory)
    .filter((name) => name.length >= before.length + after.length)
    .filter((name) => name.startsWith(before) && name.endsWith(after))
    .map((name) => `${directory}/${name}${rest}`);
}

function readItem(tree: FileTree, path: string, { keep }: Item): Reading<Uint8Array> {
  const reading = tree.read(path);
  if (reading.state !== 'read' || keep === undefined) return reading;
  const packed = path.endsWith('.gz');
  try {
    const bytes = packed ? gunzipSync(reading.value, { maxOutputLength: MAX_UNPACKED }) : reading.value;
    const kept = new TextEncoder().encode(keep(new TextDecoder().decode(bytes)));
    return { state: 'read', value: packed ? new Uint8Array(gzipSync(kept)) : kept };
  } catch {
    return { state: 'failed', why: 'it cannot be unpacked' };
  }
}
