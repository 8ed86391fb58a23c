/** A thread of a process: its system calls, and the loads and stores of its code. */

import { KernelError } from '../../abi/errno.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { HostKernel } from '../host-kernel.ts';
import * as files from './file-calls.ts';
import type { FileObject } from './file-object.ts';
import { createMemfd } from './memfd-create.ts';
import * as memory from './memory-calls.ts';
import { mmap } from './mmap.ts';
import { OpenFile, type OpenOptions } from './open-file.ts';
import type { Process } from './process.ts';
import type {
  FileStat,
  MmapRequest,
  PolicyReport,
  SystemCalls,
  UserArg,
  UserOffset,
} from './system-calls.ts';
import { copyIn, copyOut, loadUser, storeUser } from './user-access.ts';

/** @public */
export class Task implements SystemCalls {
  readonly process: Process;
  #cpu: number;
  #calls = 0;
  readonly #whenIdle: (() => void)[] = [];
  #signalled = false;
  readonly #onSignal = new Set<() => void>();

  constructor(process: Process, cpu: number) {
    this.process = process;
    this.#cpu = cpu;
  }

  get kernel(): HostKernel {
    return this.process.kernel;
  }

  /** Number of the processor the thread runs on. One that goes offline is left for another. */
  get cpu(): number {
    const { cpus } = this.kernel;
    if (cpus[this.#cpu]?.online === false) {
      this.#cpu = cpus.find(({ online }) => online)?.index ?? this.#cpu;
    }
    return this.#cpu;
  }

  /** sched_setaffinity. */
  set cpu(cpu: number) {
    this.#cpu = cpu;
  }

  /** The processor the thread runs on. */
  get lp(): LogicalProcessor {
    const cpu = this.kernel.cpus[this.cpu];
    if (cpu === undefined) throw new Error(`there is no CPU ${this.cpu}`);
    return cpu.lp;
  }

  open(path: string, flags?: number): Promise<number> {
    return this.#call(() => files.open(this, path, flags));
  }

  close(fd: number): Promise<void> {
    return this.#call(() => files.close(this, fd));
  }

  dup(fd: number): number {
    return files.dup(this, fd);
  }

  ioctl(fd: number, request: number, arg: UserArg = 0): Promise<number> {
    return this.#call(() => files.ioctl(this, fd, request, arg));
  }

  fallocate(fd: number, mode: number, offset: UserOffset, length: UserOffset): Promise<void> {
    return this.#call(() => files.fallocate(this, fd, mode, offset, length));
  }

  ftruncate(fd: number, sizeBytes: UserOffset): Promise<void> {
    return this.#call(() => files.ftruncate(this, fd, sizeBytes));
  }

  fstat(fd: number): FileStat {
    return this.process.files.get(fd).object.stat();
  }

  fdinfo(fd: number): Record<string, string> {
    return files.fdinfo(this, fd);
  }

  read(fd: number, lengthBytes: number): Promise<Uint8Array> {
    return this.#call(() => files.read(this, fd, lengthBytes));
  }

  write(fd: number, bytes: Uint8Array): Promise<number> {
    return this.#call(() => files.write(this, fd, bytes));
  }

  pread(fd: number, lengthBytes: number, offset: UserOffset): Promise<Uint8Array> {
    return this.#call(() => files.pread(this, fd, lengthBytes, offset));
  }

  pwrite(fd: number, bytes: Uint8Array, offset: UserOffset): Promise<number> {
    return this.#call(() => files.pwrite(this, fd, bytes, offset));
  }

  mmap(request: MmapRequest): Promise<number> {
    return this.#call(() => mmap(this, request));
  }

  munmap(address: number, lengthBytes: number): Promise<void> {
    return this.#call(() => memory.munmap(this, address, lengthBytes));
  }

  madvise(address: number, lengthBytes: number, advice: number): Promise<void> {
    return this.#call(() => memory.madvise(this, address, lengthBytes, advice));
  }

  mbind(address: number, lengthBytes: number, mode: number, nodes: readonly number[], flags = 0): void {
    memory.mbind(this, address, lengthBytes, mode, nodes, flags);
  }

  getMempolicy(address: number): PolicyReport {
    return memory.getMempolicy(this, address);
  }

  pageNodes(addresses: readonly number[]): readonly number[] {
    return memory.pageNodes(this, addresses);
  }

  memfdCreate(name: string, flags = 0): number {
    return createMemfd(this, name, flags);
  }

  async load(address: number, lengthBytes: number): Promise<Uint8Array> {
    const { schedule } = this.kernel;
    if (schedule !== null) await schedule('user-load');
    return loadUser(this, address, lengthBytes);
  }

  async store(address: number, bytes: Uint8Array): Promise<void> {
    const { schedule } = this.kernel;
    if (schedule !== null) await schedule('user-store');
    return storeUser(this, address, bytes);
  }

  /** Another thread of the same process. */
  thread(cpu = this.cpu): Task {
    return this.process.thread(cpu);
  }

  /** Another process with a copy of this one's memory and the same open files; its only thread. Throws ENOMEM. */
  fork(): Promise<Task> {
    return this.#call(() => this.process.fork(this.cpu));
  }

  /** exit_group: ends the whole process. */
  exit(): Promise<void> {
    return this.process.exit();
  }

  /** Sends a signal: a call that can be interrupted ends with EINTR, the one under way or else the next. */
  signal(): void {
    this.#signalled = true;
    for (const wake of [...this.#onSignal]) wake();
  }

  get signalPending(): boolean {
    return this.#signalled;
  }

  /** For kernel code: throws EINTR where a signal is pending, which is delivered by that. */
  checkSignal(): void {
    if (!this.#signalled) return;
    this.#signalled = false;
    throw new KernelError('EINTR', 'interrupted', 'a signal interrupted the call');
  }

  /** For kernel code: sleeps until `event` or a signal. Throws EINTR. */
  async interruptible<T>(event: Promise<T>): Promise<T> {
    this.checkSignal();
    let wake = (): void => undefined;
    const signal = new Promise<'signal'>((resolve) => {
      wake = () => resolve('signal');
    });
    this.#onSignal.add(wake);
    try {
      const first = await Promise.race([event.then((value) => ({ value })), signal]);
      if (first !== 'signal') return first.value;
    } finally {
      this.#onSignal.delete(wake);
    }
    this.checkSignal();
    return event;
  }

  /** For kernel code: `lengthBytes` bytes from `offset` of a call's argument. Throws EFAULT. */
  copyIn(arg: UserArg, lengthBytes: number, offset = 0): Promise<Uint8Array> {
    return copyIn(this, arg, lengthBytes, offset);
  }

  /** For kernel code: writes to `offset` of a call's argument. Throws EFAULT. */
  copyOut(arg: UserArg, bytes: Uint8Array, offset = 0): Promise<void> {
    return copyOut(this, arg, bytes, offset);
  }

  /** For kernel code: opens a file on `object` and gives it a descriptor. Throws EMFILE; then the object is released. */
  async installFile(object: FileObject, options: OpenOptions = {}): Promise<number> {
    const file = new OpenFile(object, this.kernel.openObjects, options);
    try {
      return this.process.files.install(file);
    } catch (error) {
      await file.put();
      throw error;
    }
  }

  /** Resolves once no system call of the thread is under way. */
  async idle(): Promise<void> {
    if (this.#calls > 0) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  async #call<T>(work: () => T | Promise<T>): Promise<T> {
    if (this.process.hasExited) throw new Error('a process that has exited makes no system calls');
    this.#calls++;
    try {
      const { schedule } = this.kernel;
      if (schedule !== null) await schedule('system-call');
      return await work();
    } finally {
      this.#calls--;
      if (this.#calls === 0) for (const wake of this.#whenIdle.splice(0)) wake();
    }
  }
}
