/** User space that launches an SNP guest by system calls alone, as far as tests need it. */
import { GIB, PAGE_4K } from '../../../../src/abi/address.ts';
import { KernelError } from '../../../../src/abi/errno.ts';
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
  KVM_SEV,
  KVM_SEV_CMD,
  KVM_SEV_INIT,
  KVM_SEV_SNP_LAUNCH_FINISH,
  KVM_SEV_SNP_LAUNCH_START,
  KVM_SEV_SNP_LAUNCH_UPDATE,
} from '../../../../src/abi/kvm/sev.ts';
import {
  KVM_CREATE_GUEST_MEMFD,
  KVM_ENABLE_CAP,
  KVM_MEM,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_MEMORY_ATTRIBUTES,
  KVM_MEMORY_ATTRIBUTES2,
  KVM_USERSPACE_MEMORY_REGION2,
} from '../../../../src/abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../../../src/abi/kvm/vm-types.ts';
import { FALLOC_FL, MAP, PROT } from '../../../../src/abi/system-call-flags.ts';
import { startProcess } from '../../../../src/kernel/process/process.ts';
import type { Task } from '../../../../src/kernel/process/task.ts';
import type { SnpBackend } from '../../../../src/kvm/backends/snp/snp-backend.ts';
import type { SnpHost } from '../../../../src/kvm/backends/snp/snp-host.ts';
import type { SnpTechnology } from '../../../../src/kvm/backends/snp/technology.ts';
import type { LoadOptions } from '../../../../src/kvm/load-kvm.ts';
import type { VmFile } from '../../../../src/kvm/vm-file.ts';
import type { GuestScript } from '../../../../src/lab/guest/flow.ts';
import type { ScriptedGuests } from '../../../../src/lab/guest/scripted-guests.ts';
import { SnpVerbs } from '../../../../src/lab/guest/snp-guest.ts';
import { createHost, type Host } from '../../../../src/lab/host.ts';
import { setGuestScript, startKvm } from '../../../../src/lab/kvm-host.ts';
import { type GenoaOptions, genoaMachine } from '../../../../src/lab/machines/genoa.ts';

export const C_BIT = 51;
/** First address of the guest's memory; the first page of it is the GHCB of vCPU 0, and so on. */
export const GUEST_MEMORY = GIB;
/** SMT allowed, and the bit that must be one. */
export const POLICY = 0x3_0000n;

export interface SnpTestHost extends Host {
  readonly guests: ScriptedGuests;
  readonly snp: SnpHost;
}

export async function snpHost(
  machine: GenoaOptions = {},
  kvmOptions: LoadOptions = {},
): Promise<SnpTestHost> {
  const host = createHost(genoaMachine({ memoryBytes: GIB, asids: 8, minSevAsid: 5, ...machine }));
  await host.kernel.boot();
  const { kvm, guests } = await startKvm(host, kvmOptions);
  const technology = kvm.technologies.get(KVM_VM_TYPE.SNP) as SnpTechnology;
  return { ...host, guests, snp: technology.host! };
}

/** One SNP VM in a process of its own. */
export class UserSnp {
  readonly host: SnpTestHost;
  readonly task: Task;
  readonly vm: number;
  readonly sev: number;
  readonly backend: SnpBackend;
  readonly vcpus: { readonly fd: number; readonly run: number }[] = [];
  /** Firmware error of the last command. */
  fwError = 0;
  gmem = -1;
  /** Address of the shared half in the process. */
  memory = 0;

  private constructor(host: SnpTestHost, task: Task, vm: number, sev: number) {
    this.host = host;
    this.task = task;
    this.vm = vm;
    this.sev = sev;
    this.backend = (task.process.files.get(vm).object as VmFile).vm.backend as SnpBackend;
  }

  static async create(host: SnpTestHost): Promise<UserSnp> {
    const task = startProcess(host.kernel);
    const kvm = await task.open('/dev/kvm');
    const vm = await task.ioctl(kvm, KVM.CREATE_VM, KVM_VM_TYPE.SNP);
    const user = new UserSnp(host, task, vm, await task.open('/dev/sev'));
    await user.enableCap(KVM_CAP.EXIT_HYPERCALL, 1n << BigInt(KVM_HC_MAP_GPA_RANGE));
    return user;
  }

  /** A guest with vCPUs and memory whose launch has been started. */
  static async launching(host: SnpTestHost, pages: number, vcpus = 1): Promise<UserSnp> {
    const user = await UserSnp.create(host);
    await user.init();
    for (let id = 0; id < vcpus; id++) await user.addVcpu(id);
    await user.addMemory(pages);
    await user.start();
    return user;
  }

  enableCap(cap: number, value: bigint): Promise<number> {
    return this.task.ioctl(this.vm, KVM.ENABLE_CAP, KVM_ENABLE_CAP.encode({ cap, args: [value] }));
  }

  /** KVM_MEMORY_ENCRYPT_OP with a structure in the process' memory; returns the structure as the kernel leaves it. */
  async command(id: number, structure: Uint8Array, fd = this.sev): Promise<Uint8Array> {
    const address = await this.userBuffer(structure);
    const command = KVM_SEV_CMD.encode({ id, data: BigInt(address), sev_fd: fd });
    try {
      await this.task.ioctl(this.vm, KVM.MEMORY_ENCRYPT_OP, command);
      return await this.task.load(address, structure.length);
    } finally {
      this.fwError = KVM_SEV_CMD.decode(command).error;
      await this.task.munmap(address, PAGE_4K);
    }
  }

  /** Fresh user memory with these contents. */
  async userBuffer(contents: Uint8Array): Promise<number> {
    const address = await this.anonymous(Math.max(1, Math.ceil(contents.length / PAGE_4K)));
    await this.task.store(address, contents);
    return address;
  }

  anonymous(pages: number): Promise<number> {
    const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
    return this.task.mmap({ lengthBytes: pages * PAGE_4K, prot: PROT.READ | PROT.WRITE, flags });
  }

  init(values: Parameters<typeof KVM_SEV_INIT.encode>[0] = {}): Promise<Uint8Array> {
    return this.command(KVM_SEV.INIT2, KVM_SEV_INIT.encode(values));
  }

  start(
    values: Parameters<typeof KVM_SEV_SNP_LAUNCH_START.encode>[0] = {},
    fd = this.sev,
  ): Promise<Uint8Array> {
    const start = KVM_SEV_SNP_LAUNCH_START.encode({ policy: POLICY, ...values });
    return this.command(KVM_SEV.SNP_LAUNCH_START, start, fd);
  }

  /** LAUNCH_UPDATE; returns the structure afterwards. */
  async update(gpa: number, contents: Uint8Array, type = 1) {
    const update = KVM_SEV_SNP_LAUNCH_UPDATE.encode({
      gfn_start: BigInt(gpa / PAGE_4K),
      uaddr: BigInt(await this.userBuffer(contents)),
      len: BigInt(contents.length),
      type,
    });
    return KVM_SEV_SNP_LAUNCH_UPDATE.decode(await this.command(KVM_SEV.SNP_LAUNCH_UPDATE, update));
  }

  finish(values: Parameters<typeof KVM_SEV_SNP_LAUNCH_FINISH.encode>[0] = {}): Promise<Uint8Array> {
    return this.command(KVM_SEV.SNP_LAUNCH_FINISH, KVM_SEV_SNP_LAUNCH_FINISH.encode(values));
  }

  async addVcpu(id: number): Promise<number> {
    const fd = await this.task.ioctl(this.vm, KVM.CREATE_VCPU, id);
    const run = await this.task.mmap({
      lengthBytes: 2 * PAGE_4K,
      prot: PROT.READ | PROT.WRITE,
      flags: MAP.SHARED,
      fd,
    });
    this.vcpus.push({ fd, run });
    return fd;
  }

  /** Memory of the guest: a guest_memfd for the private half, all private, and anonymous memory for the shared one. */
  async addMemory(pages: number, flags = 0n, slot = 0, gpa = GUEST_MEMORY): Promise<void> {
    const size = BigInt(pages * PAGE_4K);
    const file = KVM_CREATE_GUEST_MEMFD.encode({ size, flags });
    this.gmem = await this.task.ioctl(this.vm, KVM.CREATE_GUEST_MEMFD, file);
    this.memory = await this.anonymous(pages);
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

  /** Attributes are the file's. */
  get isInPlace(): boolean {
    return this.backend.guest.vm.options.inPlaceConversion;
  }

  setPrivate(gpa: number, pages: number, isPrivate: boolean): Promise<number> {
    const attributes = isPrivate ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n;
    if (this.isInPlace) {
      const inFile = { offset: BigInt(gpa - GUEST_MEMORY), size: BigInt(pages * PAGE_4K), attributes };
      return this.task.ioctl(this.gmem, KVM.SET_MEMORY_ATTRIBUTES2, KVM_MEMORY_ATTRIBUTES2.encode(inFile));
    }
    const range = { address: BigInt(gpa), size: BigInt(pages * PAGE_4K), attributes };
    return this.task.ioctl(this.vm, KVM.SET_MEMORY_ATTRIBUTES, KVM_MEMORY_ATTRIBUTES.encode(range));
  }

  punch(gpa: number, pages: number): Promise<void> {
    const mode = FALLOC_FL.PUNCH_HOLE | FALLOC_FL.KEEP_SIZE;
    return this.task.fallocate(this.gmem, mode, gpa - GUEST_MEMORY, pages * PAGE_4K);
  }

  script(script: GuestScript, vcpu = 0): void {
    setGuestScript(this.host.guests, this.task, this.vcpus[vcpu]!.fd, script);
  }

  /** A script with the verbs of an SNP guest. */
  snpScript(script: (verbs: SnpVerbs) => ReturnType<GuestScript>, vcpu = 0): void {
    const ghcb = GUEST_MEMORY + vcpu * PAGE_4K;
    this.script((cpu) => script(new SnpVerbs(cpu, { cBit: C_BIT, ghcb })), vcpu);
  }

  /** One KVM_RUN; the name of the exit, or the errno with it. */
  async run(vcpu = 0): Promise<string> {
    let errno = '';
    try {
      await this.task.ioctl(this.vcpus[vcpu]!.fd, KVM.RUN);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      errno = `${error.errno} `;
    }
    const bytes = await this.task.load(this.vcpus[vcpu]!.run + 8, 4);
    const reason = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
    return errno + (Object.entries(KVM_EXIT).find(([, value]) => value === reason)?.[0] ?? `exit ${reason}`);
  }

  async union<T>(layout: { readonly bytes: number; decode(bytes: Uint8Array): T }, vcpu = 0): Promise<T> {
    return layout.decode(await this.task.load(this.vcpus[vcpu]!.run + KVM_RUN_EXIT_OFFSET, layout.bytes));
  }

  /** Writes at `offset` of the union. */
  answer(offset: number, bytes: Uint8Array, vcpu = 0): Promise<void> {
    return this.task.store(this.vcpus[vcpu]!.run + KVM_RUN_EXIT_OFFSET + offset, bytes);
  }

  /** Runs until the guest halts, with conversions done as it asks. Returns the other exits. */
  async runToHalt(vcpu = 0): Promise<string[]> {
    const exits: string[] = [];
    for (;;) {
      const exit = await this.run(vcpu);
      exits.push(exit);
      if (exit !== 'HYPERCALL') return exits;
      await this.convert(vcpu);
    }
  }

  /** What the hypercall asks for: attributes, and no memory for the half that is not used. */
  async convert(vcpu = 0): Promise<void> {
    const [gpa, pages, attributes] = (await this.union(KVM_RUN_EXIT.HYPERCALL, vcpu)).args.map(Number);
    const isPrivate = (BigInt(attributes!) & KVM_MAP_GPA_RANGE.ENC_STAT) !== 0n;
    await this.setPrivate(gpa!, pages!, isPrivate);
    if (!isPrivate && !this.isInPlace) await this.punch(gpa!, pages!);
  }

  exit(): Promise<void> {
    return this.task.exit();
  }
}

/** What a host has in use: everything must be back to the same after a guest. */
export function account({ kernel, machine, snp }: SnpTestHost) {
  return {
    usedPages: kernel.allocator.accounts().reduce((sum, node) => sum + node.used, 0),
    countedPages: kernel.pageRefs.size,
    objects: kernel.openObjects.all,
    asids: snp.asids.inUse,
    charged: snp.asidResource.current,
    leaked: snp.leakedPages,
    rmp: machine.snp!.rmp.usedPages(),
    contexts: machine.snp!.firmware.contexts.size,
  };
}

/** Errno and code of a refused call; 'done' where it is not refused. */
export async function refusal(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'done';
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return `${error.errno} ${error.reason.code}`;
  }
}
