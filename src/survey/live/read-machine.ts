/** Reads the machine this runs on, or what was collected of another. */
import { type Collection, collectHost } from './collection.ts';
import { liveHost } from './live-host.ts';
import { storedHost } from './stored-host.ts';

/**
 * What can be read of the machine this runs on, or, with `root`, of the machine whose collection (directory or archive)
 * or file system is there. Throws InputError when there is nothing at `root`.
 * @public
 */
export function readMachine(root?: string): Collection {
  return collectHost(root === undefined ? liveHost() : storedHost(root));
}
