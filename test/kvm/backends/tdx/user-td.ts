/** User space that makes a TD by system calls alone: what a VMM does, as far as tests need it. */
import { GIB, PAGE_4K } from '../../../../src/abi/address.ts';
import { KVM_CAP } from '../../../../src/abi/kvm/capabilities.ts';
import {
  KVM_EXIT,
  KVM_HC_MAP_GPA_RANGE,
  KVM_MAP_GPA_RANGE,
  KVM_RUN_EXIT,
  KVM_RUN_EXIT_OFFSET,
} from '../../../../src/abi/kvm/exits.ts';
import { KVM } from '../../../../src/abi/kvm/ioctl.ts';
import {
  KVM_CPUID_ENTRY2,
  KVM_CPUID2,
  KVM_CREATE_GUEST_MEMFD,
  KVM_ENABLE_CAP,
  KVM_MEM,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_MEMORY_ATTRIBUTES,
  KVM_PRE_FAULT_MEMORY,
  KVM_USERSPACE_MEMORY_REGION2,
} from '../../../../src/abi/kvm/structs.ts';
import {
  KVM_TDX,
  KVM_TDX_CAPABILITIES,
  KVM_TDX_CMD,
  KVM_TDX_INIT_MEM_REGION,
} from '../../../../src/abi/kvm/tdx.ts';
import { KVM_VM_TYPE } from '../../../../src/abi/kvm/vm-types.ts';
import { FALLOC_FL, MAP, PROT } from '../../../../src/abi/system-call-flags.ts';
import { Process } from '../../../../src/kernel/process/process.ts';
import type { Task } from '../../../../src/kernel/process/task.ts';
import type { TdxBackend } from '../../../../src/kvm/backends/tdx/index.ts';
import type { VmFile } from '../../../../src/kvm/vm-file.ts';
import type { GuestScript } from '../../../../src/lab/guest/flow.ts';
import { type InitVmChange, initVmBytes } from './init-vm-bytes.ts';
import type { TdxTestHost } from './tdx-test-host.ts';

/** First address of the guest's memory. */
export const GUEST_MEMORY = GIB;

/** One TD in a process of its own. */
export class UserTd {
  readonly host: TdxTestHost;
  readonly task: Task;
  readonly kvm: number;
  readonly vm: number;
  readonly backend: TdxBackend;
  readonly vcpus: { readonly fd: number; readonly run: number; readonly task: Task }[] = [];
  gmem = -1;
  /** Address of the shared half in the process. */
  memory = 0;

  private constructor(host: TdxTestHost, task: Task, kvm: number, vm: number) {
    this.host = host;
    this.task = task;
    this.kvm = kvm;
    this.vm = vm;
    this.backend = (task.process.files.get(vm).object as VmFile).vm.backend as TdxBackend;
  }

  /** A VM that is no TD yet. */
  static async create(host: TdxTestHost, cpu = 0): Promise<UserTd> {
    const task = new Process(host.kernel).thread(cpu);
    const kvm = await task.open('/dev/kvm');
    const vm = await task.ioctl(kvm, KVM.CREATE_VM, KVM_VM_TYPE.TDX);
    const td = new UserTd(host, task, kvm, vm);
    await td.enableCap(KVM_CAP.SPLIT_IRQCHIP, 24n);
    await td.enableCap(KVM_CAP.EXIT_HYPERCALL, 1n << BigInt(KVM_HC_MAP_GPA_RANGE));
    return td;
  }

  /** A TD with vCPUs and memory, not final yet. */
  static async build(host: TdxTestHost, pages: number, vcpus = 1): Promise<UserTd> {
    const td = await UserTd.create(host);
    await td.initVm();
    for (let id = 0; id < vcpus; id++) await td.addVcpu(id);
    await td.addMemory(pages);
    return td;
  }

  enableCap(cap: number, value: bigint): Promise<number> {
    return this.task.ioctl(this.vm, KVM.ENABLE_CAP, KVM_ENABLE_CAP.encode({ cap, args: [value] }));
  }

  /** KVM_MEMORY_ENCRYPT_OP with a structure in the process' memory; returns hw_error and the structure. */
  async command(
    fd: number,
    id: number,
    structure: Uint8Array | bigint = 0n,
    flags = 0,
    task = this.task,
  ): Promise<{ hwError: bigint; structure: Uint8Array }> {
    const isValue = typeof structure === 'bigint';
    const address = isValue ? 0 : await this.userBuffer(structure.length);
    if (!isValue) await task.store(address, structure);
    const data = isValue ? structure : BigInt(address);
    const command = KVM_TDX_CMD.encode({ id, flags, data });
    try {
      await task.ioctl(fd, KVM.MEMORY_ENCRYPT_OP, command);
    } finally {
      this.lastCommand = KVM_TDX_CMD.decode(command);
      if (!isValue) this.lastStructure = await task.load(address, structure.length);
    }
    return { hwError: this.lastCommand.hw_error, structure: isValue ? new Uint8Array() : this.lastStructure };
  }

  lastCommand = KVM_TDX_CMD.decode(new Uint8Array(KVM_TDX_CMD.bytes));
  lastStructure: Uint8Array = new Uint8Array();

  async userBuffer(bytes: number): Promise<number> {
    return this.task.mmap({
      lengthBytes: Math.ceil(Math.max(bytes, 1) / PAGE_4K) * PAGE_4K,
      prot: PROT.READ | PROT.WRITE,
      flags: MAP.PRIVATE | MAP.ANONYMOUS,
    });
  }

  async capabilities(entries = 64): Promise<Uint8Array> {
    const bytes = new Uint8Array(KVM_TDX_CAPABILITIES.bytes + entries * KVM_CPUID_ENTRY2.bytes);
    KVM_TDX_CAPABILITIES.patch(bytes, { cpuid: { nent: entries, padding: 0 } });
    return (await this.command(this.vm, KVM_TDX.CAPABILITIES, bytes)).structure;
  }

  async initVm(change: InitVmChange = {}): Promise<void> {
    await this.command(this.vm, KVM_TDX.INIT_VM, initVmBytes(change), change.flags ?? 0);
  }

  async addVcpu(id: number, initialised = true): Promise<number> {
    const fd = await this.task.ioctl(this.vm, KVM.CREATE_VCPU, id);
    const task = this.task.thread(id % this.host.kernel.cpus.length);
    await this.setCpuid(fd);
    const run = await this.task.mmap({
      lengthBytes: 2 * PAGE_4K,
      prot: PROT.READ | PROT.WRITE,
      flags: MAP.SHARED,
      fd,
    });
    this.vcpus.push({ fd, run, task });
    if (initialised) await this.command(fd, KVM_TDX.INIT_VCPU, 0x1234n, 0, task);
    return fd;
  }

  async setCpuid(fd: number): Promise<void> {
    const entry = KVM_CPUID_ENTRY2.encode({ function: 1, ecx: 1 << 21 });
    const bytes = new Uint8Array([...KVM_CPUID2.encode({ nent: 1 }), ...entry]);
    await this.task.ioctl(fd, KVM.SET_CPUID2, bytes);
  }

  /** Memory of the guest: a guest_memfd for the private half, all private, and anonymous memory for the shared one. */
  async addMemory(pages: number, slot = 0, gpa = GUEST_MEMORY): Promise<void> {
    const size = BigInt(pages * PAGE_4K);
    this.gmem = await this.task.ioctl(
      this.vm,
      KVM.CREATE_GUEST_MEMFD,
      KVM_CREATE_GUEST_MEMFD.encode({ size }),
    );
    this.memory = await this.task.mmap({
      lengthBytes: pages * PAGE_4K,
      prot: PROT.READ | PROT.WRITE,
      flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE,
    });
    const region = KVM_USERSPACE_MEMORY_REGION2.encode({
      slot,
      flags: KVM_MEM.GUEST_MEMFD,
      guest_phys_addr: BigInt(gpa),
      memory_size: size,
      userspace_addr: BigInt(this.memory),
      guest_memfd: this.gmem,
    });
    await this.task.ioctl(this.vm, KVM.SET_USER_MEMORY_REGION2, region);
    await this.setPrivate(gpa, pages, true);
  }

  setPrivate(gpa: number, pages: number, isPrivate: boolean): Promise<number> {
    const attributes = isPrivate ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n;
    const bytes = KVM_MEMORY_ATTRIBUTES.encode({
      address: BigInt(gpa),
      size: BigInt(pages * PAGE_4K),
      attributes,
    });
    return this.task.ioctl(this.vm, KVM.SET_MEMORY_ATTRIBUTES, bytes);
  }

  /** KVM_PRE_FAULT_MEMORY by vCPU 0. */
  async preFault(gpa: number, pages: number): Promise<void> {
    const range = KVM_PRE_FAULT_MEMORY.encode({ gpa: BigInt(gpa), size: BigInt(pages * PAGE_4K) });
    await this.vcpus[0]!.task.ioctl(this.vcpus[0]!.fd, KVM.PRE_FAULT_MEMORY, range);
  }

  /** KVM_TDX_INIT_MEM_REGION of the given contents; `measured` extends MRTD by them. */
  async initRegion(gpa: number, contents: Uint8Array, measured = true, vcpu = 0): Promise<Uint8Array> {
    const source = await this.userBuffer(contents.length);
    await this.task.store(source, contents);
    const region = KVM_TDX_INIT_MEM_REGION.encode({
      source_addr: BigInt(source),
      gpa: BigInt(gpa),
      nr_pages: BigInt(contents.length / PAGE_4K),
    });
    return (await this.command(this.vcpus[vcpu]!.fd, KVM_TDX.INIT_MEM_REGION, region, measured ? 1 : 0))
      .structure;
  }

  finalize(): Promise<{ hwError: bigint }> {
    return this.command(this.vm, KVM_TDX.FINALIZE_VM);
  }

  /** The script of a vCPU's guest. */
  script(vcpu: number, script: GuestScript): void {
    const { vm } = this.backend.td;
    this.host.guests.set(this.backend.guestAddress(vm.vcpus.get(vcpu)!), script);
  }

  /** One KVM_RUN; returns the exit reason. */
  async run(vcpu = 0): Promise<number> {
    const { fd, run, task } = this.vcpus[vcpu]!;
    await task.ioctl(fd, KVM.RUN);
    const reason = await task.load(run + 8, 4);
    return new DataView(reason.buffer, reason.byteOffset).getUint32(0, true);
  }

  /** The union of the run page. */
  union(vcpu = 0): Promise<Uint8Array> {
    return this.task.load(this.vcpus[vcpu]!.run + KVM_RUN_EXIT_OFFSET, 256);
  }

  async answer(bytes: Uint8Array, vcpu = 0): Promise<void> {
    await this.task.store(this.vcpus[vcpu]!.run + KVM_RUN_EXIT_OFFSET, bytes);
  }

  /** Runs until the script has returned, converting what the guest asks for. Returns the exits to user space. */
  async runToEnd(vcpu = 0): Promise<number[]> {
    const exits: number[] = [];
    const address = this.backend.guestAddress(this.backend.td.vm.vcpus.get(vcpu)!);
    while (!this.host.guests.isDone(address)) {
      // A script that has returned halts, which would put the thread to sleep.
      const running = this.run(vcpu);
      const reason = await Promise.race([running, this.untilDone(address)]);
      if (reason === 'done') {
        this.vcpus[vcpu]!.task.signal();
        await running.catch(() => undefined);
        break;
      }
      exits.push(reason);
      if (reason === KVM_EXIT.HYPERCALL) await this.convert(vcpu);
    }
    return exits;
  }

  /** Does what a MapGPA hypercall asks: attributes, and the memory of the half that is left. */
  async convert(vcpu = 0): Promise<void> {
    const { args } = KVM_RUN_EXIT.HYPERCALL.decode(await this.union(vcpu));
    const [gpa, pages, attributes] = args as [bigint, bigint, bigint];
    const toPrivate = (attributes & KVM_MAP_GPA_RANGE.ENC_STAT) !== 0n;
    await this.setPrivate(Number(gpa), Number(pages), toPrivate);
    if (!toPrivate) await this.punch(Number(gpa), Number(pages));
  }

  punch(gpa: number, pages: number): Promise<void> {
    const mode = FALLOC_FL.PUNCH_HOLE | FALLOC_FL.KEEP_SIZE;
    return this.task.fallocate(this.gmem, mode, gpa - GUEST_MEMFD_START, pages * PAGE_4K);
  }

  private async untilDone(address: number): Promise<'done'> {
    while (!this.host.guests.isDone(address)) await new Promise((resolve) => setImmediate(resolve));
    return 'done';
  }

  /** Ends the process, and the TD with it. */
  exit(): Promise<void> {
    return this.task.exit();
  }
}

const GUEST_MEMFD_START = GUEST_MEMORY;
