/** What the restated KVM selftests run on: the system calls of a kernel, modelled or real, and shorthand for them. */
import { expect } from 'vitest';
import { PAGE_4K } from '../../src/abi/address.ts';
import { type ErrnoName, KernelError } from '../../src/abi/errno.ts';
import { KVM_CAP } from '../../src/abi/kvm/capabilities.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_CREATE_GUEST_MEMFD, KVM_USERSPACE_MEMORY_REGION2 } from '../../src/abi/kvm/structs.ts';
import { MAP, PROT } from '../../src/abi/system-call-flags.ts';
import { type SystemCalls, UserFault } from '../../src/kernel/process/system-calls.ts';

/** One memory slot, as KVM_SET_USER_MEMORY_REGION2 takes it. */
export type Region = Parameters<typeof KVM_USERSPACE_MEMORY_REGION2.encode>[0];

/** What the kernel does otherwise than Linux 7.2. */
export interface Quirks {
  /** What takes the real kernel too long is left out. */
  readonly isReal?: boolean;
  /** A range of the file that another slot has is EINVAL, not EEXIST. */
  readonly fileOverlapIsInvalid?: boolean;
  /** mbind sets the policy of the mapping, not of the pages of the file. */
  readonly policiesOfMappings?: boolean;
  /** Up to Linux 6.18 a sum of offset and size that overflows 63 bits is taken for one inside the file. */
  readonly bindsAtLastOffset?: boolean;
}

/** A program that uses KVM, from its first system call to its end. */
export class Session {
  readonly calls: SystemCalls;
  /** Argument of KVM_CREATE_VM. */
  readonly vmType: number;
  /** Nodes that have memory. */
  readonly nodes: number;
  readonly quirks: Quirks;
  readonly #open = new Set<number>();
  #kvm = -1;

  constructor(calls: SystemCalls, vmType: number, nodes: number, quirks: Quirks = {}) {
    this.calls = calls;
    this.vmType = vmType;
    this.nodes = nodes;
    this.quirks = quirks;
  }

  async kvm(): Promise<number> {
    if (this.#kvm < 0) this.#kvm = this.opened(await this.calls.open('/dev/kvm', 2));
    return this.#kvm;
  }

  async createVm(type = this.vmType): Promise<number> {
    return this.opened(await this.calls.ioctl(await this.kvm(), KVM.CREATE_VM, type));
  }

  async capability(fd: number, cap: number): Promise<number> {
    return this.calls.ioctl(fd, KVM.CHECK_EXTENSION, cap);
  }

  /** Flags of guest_memfd that VMs of this type take. */
  async fileFlags(vm: number): Promise<bigint> {
    return BigInt(await this.capability(vm, KVM_CAP.GUEST_MEMFD_FLAGS));
  }

  async createFile(vm: number, size: number | bigint, flags = 0n): Promise<number> {
    const bytes = KVM_CREATE_GUEST_MEMFD.encode({ size: BigInt(size), flags });
    return this.opened(await this.calls.ioctl(vm, KVM.CREATE_GUEST_MEMFD, bytes));
  }

  async setRegion(vm: number, region: Region): Promise<number> {
    return this.calls.ioctl(vm, KVM.SET_USER_MEMORY_REGION2, KVM_USERSPACE_MEMORY_REGION2.encode(region));
  }

  async mapShared(fd: number, lengthBytes: number, offset = 0): Promise<number> {
    const prot = PROT.READ | PROT.WRITE;
    return this.calls.mmap({ lengthBytes, prot, flags: MAP.SHARED, fd, offset });
  }

  async anonymous(lengthBytes: number): Promise<number> {
    const prot = PROT.READ | PROT.WRITE;
    return this.calls.mmap({ lengthBytes, prot, flags: MAP.PRIVATE | MAP.ANONYMOUS });
  }

  async close(fd: number): Promise<void> {
    await this.calls.close(fd);
    this.#open.delete(fd);
  }

  /** Closes what is still open, the last first. */
  async end(): Promise<void> {
    for (const fd of [...this.#open].reverse()) await this.close(fd);
  }

  /** Has a descriptor closed at the end. */
  opened(fd: number): number {
    this.#open.add(fd);
    return fd;
  }
}

/** Expects a system call to be refused, for a reason that a person can read. */
export async function refused(
  call: Promise<unknown> | (() => unknown),
  ...errnos: ErrnoName[]
): Promise<void> {
  const error: unknown = await (typeof call === 'function' ? (async () => call())() : call).then(
    (result) => ({ result }),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof KernelError))
    throw error instanceof Error ? error : new Error(`not refused: ${JSON.stringify(error)}`);
  expect(errnos).toContain(error.errno);
  expect(error.reason.text.length).toBeGreaterThan(10);
}

/** Expects user code to get a signal. */
export async function faults(access: Promise<unknown>, signal: 'SIGBUS' | 'SIGSEGV'): Promise<void> {
  const error: unknown = await access.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(UserFault);
  expect((error as UserFault).signal).toBe(signal);
}

/** `bytes` bytes of one value. */
export function filled(bytes: number, value: number): Uint8Array {
  return new Uint8Array(bytes).fill(value);
}

/** Expects nothing but `value`; big ranges are compared whole. */
export function expectFilled(bytes: Uint8Array, value: number): void {
  expect(bytes.findIndex((byte) => byte !== value)).toBe(-1);
}

export const PAGE = PAGE_4K;
export const TWO_MIB = 512 * PAGE_4K;
