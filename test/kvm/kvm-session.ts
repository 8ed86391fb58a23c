/** A tiny host with KVM loaded, and shorthand for what programs ask of it. */
import { PAGE_4K } from '../../src/abi/address.ts';
import { KernelError } from '../../src/abi/errno.ts';
import { KVM_EXIT, KVM_RUN_COMMON, KVM_RUN_EXIT_OFFSET } from '../../src/abi/kvm/exits.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import {
  KVM_CREATE_GUEST_MEMFD,
  KVM_ENABLE_CAP,
  KVM_MEMORY_ATTRIBUTES,
  KVM_USERSPACE_MEMORY_REGION2,
} from '../../src/abi/kvm/structs.ts';
import { MAP, PROT } from '../../src/abi/system-call-flags.ts';
import { startProcess } from '../../src/kernel/process/process.ts';
import type { Task } from '../../src/kernel/process/task.ts';
import type { LoadOptions } from '../../src/kvm/load-kvm.ts';
import type { Vcpu } from '../../src/kvm/vcpu.ts';
import type { VcpuFile } from '../../src/kvm/vcpu-file.ts';
import type { Vm } from '../../src/kvm/vm.ts';
import type { VmFile } from '../../src/kvm/vm-file.ts';
import type { GuestScript } from '../../src/lab/guest/flow.ts';
import { createHost, type Host, type HostOptions } from '../../src/lab/host.ts';
import { type KvmHost, setGuestScript, startKvm } from '../../src/lab/kvm-host.ts';
import { TINY } from '../kernel/tiny-machine.ts';

export const PAGE = PAGE_4K;
export const READ_WRITE = PROT.READ | PROT.WRITE;

type Region = Parameters<typeof KVM_USERSPACE_MEMORY_REGION2.encode>[0];

/** One process with /dev/kvm open. */
export class KvmSession {
  readonly host: Host;
  readonly kvmHost: KvmHost;
  readonly task: Task;
  readonly kvm: number;
  readonly #usedBefore: number;
  readonly #objectsBefore: number;

  private constructor(host: Host, kvmHost: KvmHost, task: Task, kvm: number) {
    this.host = host;
    this.kvmHost = kvmHost;
    this.task = task;
    this.kvm = kvm;
    this.#usedBefore = usedPages(host);
    this.#objectsBefore = host.kernel.openObjects.total;
  }

  /** On a host whose BIOS has TDX off, unless `withTdx`. */
  static async start(
    options: LoadOptions = {},
    withTdx = false,
    hostOptions: HostOptions = {},
  ): Promise<KvmSession> {
    const off = { keyIds: null, seamrr: null, module: null };
    const host = createHost(withTdx ? TINY : { ...TINY, ...off }, hostOptions);
    await host.kernel.boot();
    const kvmHost = await startKvm(host, options);
    const task = startProcess(host.kernel);
    return new KvmSession(host, kvmHost, task, await task.open('/dev/kvm'));
  }

  /** Pages and kernel objects beyond those when /dev/kvm had been opened. */
  leaks(): { readonly pages: number; readonly objects: number } {
    return {
      pages: usedPages(this.host) - this.#usedBefore,
      objects: this.host.kernel.openObjects.total - this.#objectsBefore,
    };
  }

  createVm(type = 0): Promise<number> {
    return this.task.ioctl(this.kvm, KVM.CREATE_VM, type);
  }

  createVcpu(vm: number, id = 0): Promise<number> {
    return this.task.ioctl(vm, KVM.CREATE_VCPU, id);
  }

  createFile(vm: number, pages: number, flags = 0n): Promise<number> {
    const bytes = KVM_CREATE_GUEST_MEMFD.encode({ size: BigInt(pages * PAGE), flags });
    return this.task.ioctl(vm, KVM.CREATE_GUEST_MEMFD, bytes);
  }

  setRegion(vm: number, region: Region): Promise<number> {
    return this.task.ioctl(vm, KVM.SET_USER_MEMORY_REGION2, KVM_USERSPACE_MEMORY_REGION2.encode(region));
  }

  setAttributes(vm: number, gpa: number, bytes: number, attributes: bigint, flags = 0n): Promise<number> {
    const request = { address: BigInt(gpa), size: BigInt(bytes), attributes, flags };
    return this.task.ioctl(vm, KVM.SET_MEMORY_ATTRIBUTES, KVM_MEMORY_ATTRIBUTES.encode(request));
  }

  enableCap(vm: number, cap: number, value: bigint, flags = 0): Promise<number> {
    return this.task.ioctl(
      vm,
      KVM.ENABLE_CAP,
      KVM_ENABLE_CAP.encode({ cap, flags, args: [value, 0n, 0n, 0n] }),
    );
  }

  /** Fresh user memory. */
  anonymous(pages: number): Promise<number> {
    const flags = MAP.PRIVATE | MAP.ANONYMOUS;
    return this.task.mmap({ lengthBytes: pages * PAGE, prot: READ_WRITE, flags });
  }

  /** A slot of fresh user memory; its user address. */
  async sharedSlot(vm: number, slot: number, gpa: number, pages: number): Promise<number> {
    const address = await this.anonymous(pages);
    await this.setRegion(vm, {
      slot,
      guest_phys_addr: BigInt(gpa),
      memory_size: BigInt(pages * PAGE),
      userspace_addr: BigInt(address),
    });
    return address;
  }

  /** A vCPU that runs `script`: its descriptor, and the address of its run page. */
  async runner(vm: number, script: GuestScript, id = 0): Promise<Runner> {
    const fd = await this.createVcpu(vm, id);
    setGuestScript(this.kvmHost.guests, this.task, fd, script);
    const size = await this.task.ioctl(this.kvm, KVM.GET_VCPU_MMAP_SIZE);
    const page = await this.task.mmap({ lengthBytes: size, prot: READ_WRITE, flags: MAP.SHARED, fd });
    return new Runner(this.task, fd, page);
  }

  /** The kernel's own record, to look at. */
  vm(fd: number): Vm {
    return (this.task.process.files.get(fd).object as VmFile).vm;
  }
}

/** A vCPU as its thread in user space sees it. */
export class Runner {
  readonly task: Task;
  readonly fd: number;
  readonly page: number;

  constructor(task: Task, fd: number, page: number) {
    this.task = task;
    this.fd = fd;
    this.page = page;
  }

  /** The kernel's own record, to look at. */
  get vcpu(): Vcpu {
    return (this.task.process.files.get(this.fd).object as VcpuFile).vcpu;
  }

  /** KVM_RUN; the name of the exit. */
  async run(): Promise<string> {
    await this.task.ioctl(this.fd, KVM.RUN);
    return this.reason();
  }

  async reason(): Promise<string> {
    const bytes = await this.task.load(this.page, KVM_RUN_COMMON.bytes);
    const { exit_reason: reason } = KVM_RUN_COMMON.decode(bytes);
    return Object.entries(KVM_EXIT).find(([, value]) => value === reason)?.[0] ?? `exit ${reason}`;
  }

  /** The union as `layout` reads it. */
  async exit<T>(layout: { readonly bytes: number; decode(bytes: Uint8Array): T }): Promise<T> {
    return layout.decode(await this.task.load(this.page + KVM_RUN_EXIT_OFFSET, layout.bytes));
  }

  /** Writes user space's answer at `offset` of the union. */
  answer(offset: number, bytes: Uint8Array): Promise<void> {
    return this.task.store(this.page + KVM_RUN_EXIT_OFFSET + offset, bytes);
  }
}

function usedPages({ kernel }: Host): number {
  return kernel.allocator.accounts().reduce((sum, { used }) => sum + used, 0);
}

/** Errno and code of a refused call; 'done' where it is not refused. */
export async function refusal(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'done';
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    if (error.reason.text.length < 10) throw new Error(`${error.errno} comes without a reason`);
    return `${error.errno} ${error.reason.code}`;
  }
}
