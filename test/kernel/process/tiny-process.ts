/** Processes on a tiny machine, for tests of system calls. */
import { KernelError } from '../../../src/abi/errno.ts';
import { MAP, PROT } from '../../../src/abi/system-call-flags.ts';
import { HostKernel } from '../../../src/kernel/host-kernel.ts';
import type { FileObject } from '../../../src/kernel/process/file-object.ts';
import { startProcess } from '../../../src/kernel/process/process.ts';
import { type FileStat, UserFault } from '../../../src/kernel/process/system-calls.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import { Machine } from '../../../src/machine/machine.ts';
import { TINY } from '../tiny-machine.ts';

export const READ_WRITE = PROT.READ | PROT.WRITE;
export const ANONYMOUS = MAP.PRIVATE | MAP.ANONYMOUS;
export const SHARED_ANONYMOUS = MAP.SHARED | MAP.ANONYMOUS;

export interface TinyProcess {
  readonly kernel: HostKernel;
  readonly task: Task;
  /** Pages in use beyond those at the start. */
  readonly usedPages: () => number;
}

export function tinyProcess(): TinyProcess {
  const kernel = new HostKernel(new Machine(TINY));
  const used = (): number => kernel.allocator.accounts().reduce((sum, node) => sum + node.used, 0);
  const before = used();
  return { kernel, task: startProcess(kernel), usedPages: () => used() - before };
}

/** Errno of a refused call, or the signal of a fault; 'done' where neither comes. */
export async function outcome(call: () => unknown): Promise<string> {
  try {
    await call();
    return 'done';
  } catch (error) {
    if (error instanceof KernelError) {
      if (error.reason.text.length < 10) throw new Error(`${error.errno} comes without a reason`);
      return error.errno;
    }
    if (error instanceof UserFault) return error.signal;
    throw error;
  }
}

/** Maps `pages` pages of private memory. */
export function mapPages(task: Task, pages: number, flags: number = ANONYMOUS): Promise<number> {
  return task.mmap({ lengthBytes: pages * 4096, prot: READ_WRITE, flags });
}

/** A file that can do nothing but what `can` says. */
export function fileThat(can: Partial<FileObject> = {}): FileObject & { readonly released: boolean } {
  const stat: FileStat = { inode: 99, sizeBytes: 0, blockSizeBytes: 4096, blocks: 0, links: 1 };
  const file = {
    kind: 'test',
    released: false,
    stat: () => stat,
    release: async () => {
      file.released = true;
    },
    ...can,
  };
  return file;
}

/** `length` bytes of `value`. */
export const bytesOf = (value: number, length = 4096): Uint8Array => new Uint8Array(length).fill(value);
