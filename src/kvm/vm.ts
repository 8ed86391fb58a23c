/** A virtual machine: what its file, its vCPUs and its guest_memfds share, counted by all of them. */
import { KernelError } from '../abi/errno.ts';
import type { HostKernel } from '../kernel/host-kernel.ts';
import { SleepLock } from '../kernel/process/lock.ts';
import type { Process } from '../kernel/process/process.ts';
import { MemoryAttributes } from './attributes.ts';
import type { Backend } from './backend.ts';
import type { FileTechnology } from './guest-memfd/file-technology.ts';
import type { GuestMemfdUser, InvalidationKind } from './guest-memfd/user.ts';
import { VmFiles } from './guest-memfd/vm-files.ts';
import { HostMemory } from './host-memory.ts';
import { InvalidationSequence } from './invalidation-sequence.ts';
import type { KvmOptions } from './kvm-options.ts';
import { type Memslot, Memslots } from './memslots.ts';
import { ALLOW_ALL } from './msr-filter.ts';
import { hostTscKhz } from './tsc.ts';
import type { Vcpu } from './vcpu.ts';

/** @public */
export interface VmOptions {
  readonly kernel: HostKernel;
  readonly process: Process;
  readonly type: number;
  readonly options: KvmOptions;
}

/** @public */
export class Vm implements GuestMemfdUser {
  readonly kernel: HostKernel;
  /** Whose memory backs the slots; ioctls of other processes give EIO. */
  readonly process: Process;
  /** The argument of KVM_CREATE_VM. */
  readonly type: number;
  /** Module parameters of KVM. */
  readonly options: KvmOptions;
  /** Its guest_memfds; the backend says how far they are in their lives. */
  readonly files: VmFiles;
  backend!: Backend;
  /** Order of locks: vm.lock, vCPU mutexes by id, slotsLock, a file's invalidate lock, mmuLock. */
  readonly lock = new SleepLock();
  readonly slotsLock = new SleepLock();
  readonly mmuLock = new SleepLock();
  readonly slots = new Memslots();
  readonly attributes = new MemoryAttributes();
  readonly hostMemory = new HostMemory(this);
  readonly invalidations = new InvalidationSequence();
  /** By id, in the order of their creation. */
  readonly vcpus = new Map<number, Vcpu>();
  /** vCPUs whose creation has begun; more than `vcpus` while one is under way. */
  createdVcpus = 0;
  /** Limit on vCPUs, KVM_CAP_MAX_VCPUS. */
  maxVcpus: number;
  /** Hypercalls that go to user space, KVM_CAP_EXIT_HYPERCALL: bit per number. */
  hypercallExits = 0n;
  /** Which MSRs guests may use (KVM_X86_SET_MSR_FILTER). */
  msrFilter = ALLOW_ALL;
  /** Bits of KVM_X86_QUIRK that user space has turned off. */
  disabledQuirks = 0;
  /** Where interrupts are made: user space alone, the kernel, or the kernel for local APICs only. */
  irqchip: 'none' | 'kernel' | 'split' = 'none';
  /** TSC frequency that vCPUs start with, in kHz. */
  tscKhz: number;
  #bugged: string | null = null;
  #references = 1;

  constructor({ kernel, process, type, options }: VmOptions) {
    this.kernel = kernel;
    this.process = process;
    this.type = type;
    this.options = options;
    this.maxVcpus = options.maxVcpus;
    this.tscKhz = hostTscKhz(kernel.cpus[0]!.lp);
    this.files = new VmFiles(options);
    process.memory.notifiers.add(this.hostMemory);
    kernel.openObjects.add('vm');
  }

  get references(): number {
    return this.#references;
  }

  /** Why every further ioctl gives EIO; null while the VM is well. */
  get bugged(): string | null {
    return this.#bugged;
  }

  get technology(): FileTechnology {
    return this.backend.file;
  }

  get(): void {
    if (this.#references === 0) throw new Error('a destroyed VM was used');
    this.#references++;
  }

  /** Drops a reference; the last one destroys the VM. */
  async put(): Promise<void> {
    if (this.#references === 0) throw new Error('a VM was put twice');
    this.#references--;
    if (this.#references === 0) await this.#destroy();
  }

  /** Marks the VM as broken: every further ioctl gives EIO. Returns the error to throw. */
  bug(reason: string, data: Record<string, unknown> = {}): KernelError {
    this.#bugged ??= reason;
    for (const vcpu of this.vcpus.values()) {
      vcpu.requestExit();
      vcpu.wake();
    }
    return new KernelError('EIO', 'vm-bugged', `the VM is broken: ${this.#bugged}`, data);
  }

  /** Makes every vCPU leave the guest; resolves when all have. */
  async kickAll(): Promise<void> {
    for (const vcpu of this.vcpus.values()) vcpu.requestExit();
    for (const vcpu of this.vcpus.values()) await vcpu.whenOutside();
  }

  /** Makes every vCPU forget its translations before it runs another guest instruction. */
  async flushTlbs(): Promise<void> {
    for (const vcpu of this.vcpus.values()) vcpu.requests.add('tlb-flush');
    await this.kickAll();
  }

  /** Takes away what guests map of a bound file and blocks new mappings until the end of the invalidation. */
  async invalidateStart(
    _slot: Memslot,
    startGfn: number,
    endGfn: number,
    what: InvalidationKind,
  ): Promise<void> {
    this.invalidations.begin(startGfn, endGfn);
    await this.kernel.schedule?.('invalidate');
    await this.mmuLock.run(() => this.backend.zap(startGfn, endGfn, what));
  }

  invalidateEnd(_slot: Memslot, startGfn: number, endGfn: number): void {
    this.invalidations.end(startGfn, endGfn);
  }

  /** Backends whose creation failed are none. */
  async #destroy(): Promise<void> {
    this.process.memory.notifiers.delete(this.hostMemory);
    const backend = this.backend as Backend | undefined;
    await backend?.prepareDestroy?.();
    for (const vcpu of this.vcpus.values()) {
      await backend!.freeVcpu(vcpu);
      vcpu.free();
    }
    for (const slot of this.slots) await slot.backing?.unbind(slot);
    await backend?.destroyVm();
    this.kernel.openObjects.remove('vm');
  }
}
