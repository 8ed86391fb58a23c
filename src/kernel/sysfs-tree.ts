/** A file tree as programs see it: directories, files with a mode, refusals with errno and reason. */
import { KernelError } from '../abi/errno.ts';

/** A file: one value, without the newline that ends it on a real system. @public */
export interface SysfsFile {
  readonly mode: 0o444 | 0o400 | 0o644;
  readonly read: () => string;
  /** Only with mode 0644. */
  readonly write?: (value: string) => void;
}

/** A directory: files and directories by name, in the order they list. @public */
export interface SysfsDirectory {
  readonly [name: string]: SysfsFile | SysfsDirectory;
}

/** @public */
export type SysfsNode = SysfsFile | SysfsDirectory;

/** True for a file: a directory named `read` cannot be a function. @public */
export function isFile(node: SysfsNode): node is SysfsFile {
  return typeof (node as SysfsFile).read === 'function';
}

/** A read-only file. @internal */
export function file(read: () => string | number | bigint, mode: 0o444 | 0o400 = 0o444): SysfsFile {
  return { mode, read: () => String(read()) };
}

/** A directory with one entry per item. @internal */
export function directory<T>(
  items: readonly T[],
  name: (item: T, i: number) => string,
  make: (item: T) => SysfsDirectory,
): SysfsDirectory {
  return Object.fromEntries(items.map((item, i) => [name(item, i), make(item)]));
}

/** The node at an absolute `path`. Throws ENOENT, or ENOTDIR where a file is in the way. @internal */
export function lookUp(root: SysfsDirectory, path: string): SysfsNode {
  let node: SysfsNode = root;
  for (const name of path.split('/').filter((part) => part !== '')) {
    if (isFile(node))
      throw new KernelError('ENOTDIR', 'not-a-directory', `${path}: a part of it is a file`, { path });
    const next: SysfsNode | undefined = Object.hasOwn(node, name) ? node[name] : undefined;
    if (next === undefined)
      throw new KernelError('ENOENT', 'no-such-file', `${path}: no such file`, { path });
    node = next;
  }
  return node;
}

/** Every file below `node` with its path below it, depth first. @internal */
export function* walk(
  node: SysfsDirectory,
  prefix = '',
): Generator<readonly [path: string, file: SysfsFile]> {
  for (const [name, child] of Object.entries(node)) {
    const path = `${prefix}/${name}`;
    if (isFile(child)) yield [path, child];
    else yield* walk(child, path);
  }
}
