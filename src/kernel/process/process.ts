/** A process: open files and memory, shared by its threads. */
import { KernelError } from '../../abi/errno.ts';
import type { HostKernel } from '../host-kernel.ts';
import { AddressSpace } from './address-space.ts';
import { FileTable } from './file-table.ts';
import { UserFault } from './system-calls.ts';
import { Task } from './task.ts';

/** @public */
export class Process {
  readonly kernel: HostKernel;
  readonly files = new FileTable();
  readonly memory: AddressSpace;
  readonly tasks = new Set<Task>();
  #exited: Promise<void> | null = null;

  constructor(kernel: HostKernel) {
    this.kernel = kernel;
    this.memory = new AddressSpace(kernel);
    kernel.openObjects.add('process');
  }

  /** Descriptors in use. */
  get openFiles(): number {
    return this.files.size;
  }

  get hasExited(): boolean {
    return this.#exited !== null;
  }

  /** Another thread, on processor `cpu`. */
  thread(cpu: number): Task {
    const task = new Task(this, cpu);
    this.tasks.add(task);
    return task;
  }

  /**
   * Another process with the same files and a copy of the memory, in which private pages are copied when either writes.
   * Throws ENOMEM.
   */
  async fork(cpu: number): Promise<Task> {
    const child = new Process(this.kernel);
    const task = child.thread(cpu);
    for (const [fd, file] of this.files.entries) child.files.installAt(fd, file.get());
    try {
      await this.memory.fork(child.memory);
    } catch (error) {
      await child.exit();
      if (!(error instanceof UserFault)) throw error;
      throw new KernelError('ENOMEM', 'no-memory', `the process cannot be copied: ${error.reason}`);
    }
    return task;
  }

  /** Ends the process: threads end their calls, memory is unmapped, then files are closed. */
  exit(): Promise<void> {
    this.#exited ??= this.#exit();
    return this.#exited;
  }

  async #exit(): Promise<void> {
    for (const task of this.tasks) task.signal();
    for (const task of this.tasks) await task.idle();
    await this.memory.release();
    for (const [fd] of this.files.entries) await this.files.remove(fd).put();
    this.tasks.clear();
    this.kernel.openObjects.remove('process');
  }
}

/** Starts a process with one thread, on processor `cpu`. @public */
export function startProcess(kernel: HostKernel, cpu = 0): Task {
  return new Process(kernel).thread(cpu);
}
