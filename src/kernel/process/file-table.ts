/** The open files of a process by descriptor. */
import { KernelError } from '../../abi/errno.ts';
import type { OpenFile } from './open-file.ts';

/** Standard input, output and error have the descriptors below it. */
const FIRST_FD = 3;
/** RLIMIT_NOFILE, the usual soft limit. */
const MAX_FDS = 1024;

/** @public */
export class FileTable {
  readonly #files = new Map<number, OpenFile>();

  /** Number of descriptors in use. */
  get size(): number {
    return this.#files.size;
  }

  /** Descriptors in use with their files. */
  get entries(): readonly (readonly [fd: number, file: OpenFile])[] {
    return [...this.#files].sort(([a], [b]) => a - b);
  }

  /** Throws EMFILE where no descriptor is left. Calls that make a file ask before they make it. */
  reserve(): number {
    let fd = FIRST_FD;
    while (this.#files.has(fd)) fd++;
    if (fd < MAX_FDS) return fd;
    throw new KernelError('EMFILE', 'no-descriptor', `all ${MAX_FDS} descriptors are in use`, {
      max: MAX_FDS,
    });
  }

  /** Gives the file the lowest free descriptor. The table takes over the caller's reference. Throws EMFILE. */
  install(file: OpenFile): number {
    const fd = this.reserve();
    this.#files.set(fd, file);
    return fd;
  }

  /** Gives the file descriptor `fd`, which is free: a fork's files keep theirs. */
  installAt(fd: number, file: OpenFile): void {
    this.#files.set(fd, file);
  }

  /** The file, without a new reference. Throws EBADF. */
  get(fd: number): OpenFile {
    const file = this.#files.get(fd);
    if (file === undefined) throw badDescriptor(fd);
    return file;
  }

  /** Takes the descriptor out; its reference is the caller's. Throws EBADF. */
  remove(fd: number): OpenFile {
    const file = this.get(fd);
    this.#files.delete(fd);
    return file;
  }
}

function badDescriptor(fd: number): KernelError {
  return new KernelError('EBADF', 'bad-descriptor', `${fd} is not an open descriptor`, { fd });
}
