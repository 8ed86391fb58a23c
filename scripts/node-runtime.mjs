// Finds a Node that runs TypeScript directly (24 or newer): this one, or the one setup put under .runtime/.
// Plain JavaScript on purpose: it runs on Node 20.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));
export const RUNTIME_VERSION = '24.21.0';
const WANTED_MAJOR = 24;

export const RUNTIME_PACKAGE = `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`;

/** Path of a Node 24 or newer, or undefined when setup has not provided one yet. */
export function findNode() {
  if (Number(process.versions.node.split('.')[0]) >= WANTED_MAJOR) return process.execPath;
  const binary = process.platform === 'win32' ? 'node.exe' : 'node';
  const path = join(ROOT, '.runtime', 'node_modules', RUNTIME_PACKAGE, 'bin', binary);
  return existsSync(path) ? path : undefined;
}
