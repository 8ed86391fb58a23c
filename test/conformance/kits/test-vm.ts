/** A VM of whatever technology on a host of its own, its guests scripts, everything by system calls. */
import { expect } from 'vitest';
import { type AddressRange, PAGE_4K } from '../../../src/abi/address.ts';
import { ERRNO, KernelError } from '../../../src/abi/errno.ts';
import {
  KVM_EXIT_IO,
  KVM_HC_MAP_GPA_RANGE,
  KVM_MAP_GPA_RANGE,
  KVM_RUN_EXIT,
} from '../../../src/abi/kvm/exits.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import { KVM_MEM, KVM_PRE_FAULT_MEMORY, KVM_USERSPACE_MEMORY_REGION2 } from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL } from '../../../src/abi/system-call-flags.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import type { LoadOptions } from '../../../src/kvm/load-kvm.ts';
import type { Vm } from '../../../src/kvm/vm.ts';
import type { VmFile } from '../../../src/kvm/vm-file.ts';
import type { GuestCpu, GuestFlow, GuestScript } from '../../../src/lab/guest/flow.ts';
import { setGuestScript } from '../../../src/lab/kvm-host.ts';
import { setCpuid, supportedCpuid } from '../../../src/vmm/vm/cpuid.ts';
import {
  addMemory,
  type GuestBacking,
  type GuestSlot,
  setPrivate,
  slotAt,
  userAddressOf,
} from '../../../src/vmm/vm/guest-memory.ts';
import { addVcpu, exitName, readExit, writeUnion } from '../../../src/vmm/vm/guest-vcpu.ts';
import { GuestVm } from '../../../src/vmm/vm/guest-vm.ts';
import type { Region } from '../session.ts';
import type { ModelSide, Started } from '../subjects.ts';
import type { GuestSpeech, Kit } from './kit.ts';

/** Memory that every VM has: what a test library would put its code into. Private where there is such a thing. */
export const LIBRARY_SLOT: AddressRange = { start: 0, end: 64 * PAGE_4K };
/** Guests take what is here for shared from the start, as they do with devices. */
export const SHARED_WINDOW: AddressRange = { start: 0xd000_0000, end: 0xd010_0000 };
/** The port by which guests speak to the test. */
export const UCALL_PORT = 0x10;

/** How a KVM_RUN ended. */
export interface Exit {
  readonly name: string;
  /** Null where it succeeded. */
  readonly errno: string | null;
  readonly union: Uint8Array;
}

/** How a KVM_PRE_FAULT_MEMORY ended. */
export interface PreFaulted {
  readonly errno: string | null;
  readonly left: number;
}

export interface TestVmOptions {
  readonly vcpus?: number;
  /** KVM's parameter gmem_in_place_conversion: one page for both kinds. */
  readonly inPlace?: boolean;
  readonly kvm?: LoadOptions;
}

/** Says a number to the host, which goes on with the test. */
export function* say(cpu: GuestCpu, value: number): GuestFlow {
  yield* cpu.out(UCALL_PORT, value, 4);
}

export class TestVm {
  readonly kit: Kit;
  readonly vm: GuestVm;
  readonly side: ModelSide;
  /** What slots are backed by, unless told otherwise. */
  readonly backing: GuestBacking;
  readonly speech: GuestSpeech;
  /** Conversions also allocate what becomes private and give back what becomes shared. */
  allocates = false;
  readonly #started: Started;

  private constructor(kit: Kit, vm: GuestVm, started: Started, backing: GuestBacking) {
    this.kit = kit;
    this.vm = vm;
    this.side = started.model!;
    this.backing = backing;
    this.speech = kit.guest(this.side);
    this.#started = started;
  }

  /** A VM that can run. */
  static async start(
    kit: Kit,
    { vcpus = 1, inPlace = false, kvm = {} }: TestVmOptions = {},
  ): Promise<TestVm> {
    const isInPlace = inPlace || kit.backing === 'in-place';
    const started = await kit.subject.start({ ...kvm, inPlaceConversion: isInPlace });
    const backing = isInPlace && kit.backing === 'split' ? 'in-place' : kit.backing;
    const vm = await buildVm(kit, started.session.calls, vcpus, backing);
    return new TestVm(kit, vm, started, backing);
  }

  /** Another VM of the same process. */
  async sibling(): Promise<TestVm> {
    const vm = await buildVm(this.kit, this.task, 1, this.backing);
    return new TestVm(this.kit, vm, this.#started, this.backing);
  }

  get task(): Task {
    return this.side.task;
  }

  /** The kernel's own record, to look at. */
  get record(): Vm {
    return (this.task.process.files.get(this.vm.fd).object as VmFile).vm;
  }

  get isInPlace(): boolean {
    return this.backing === 'in-place';
  }

  /** Memory at `gpa` that begins shared, as far as the guest is allowed to use such. */
  async addSlot(gpa: number, pages: number, backing = this.backing): Promise<GuestSlot> {
    const slot = await addMemory(this.vm, { start: gpa, end: gpa + pages * PAGE_4K }, backing);
    if (this.kit.startsPrivate && backing !== 'anonymous') await setPrivate(this.vm, slot, true);
    return slot;
  }

  /** KVM_SET_USER_MEMORY_REGION2 for a slot that there is. */
  setSlot(slot: GuestSlot, changes: Partial<Region>, task: Task = this.task): Promise<number> {
    const region = {
      slot: slot.id,
      flags: slot.fd === null ? 0 : KVM_MEM.GUEST_MEMFD,
      guest_phys_addr: BigInt(slot.start),
      memory_size: BigInt(slot.end - slot.start),
      userspace_addr: BigInt(slot.userAddress),
      guest_memfd: slot.fd ?? 0,
      ...changes,
    };
    return task.ioctl(this.vm.fd, KVM.SET_USER_MEMORY_REGION2, KVM_USERSPACE_MEMORY_REGION2.encode(region));
  }

  deleteSlot(slot: GuestSlot, task: Task = this.task): Promise<number> {
    return this.setSlot(slot, { flags: 0, memory_size: 0n }, task);
  }

  /** The guest of a vCPU. */
  script(script: GuestScript, index = 0): void {
    this.plainScript(this.speech.wrap(script), index);
  }

  /** The same without its technology's help: it must accept memory and handle exceptions itself. */
  plainScript(script: GuestScript, index = 0): void {
    setGuestScript(this.side.kvmHost.guests, this.task, this.vm.vcpus[index]!.fd, script);
  }

  /** Asks for a conversion of pages; the guest ends where it is refused. */
  *convert(cpu: GuestCpu, gpa: number, pages: number, isPrivate: boolean): GuestFlow {
    const status = yield* this.speech.convert(cpu, gpa, pages, isPrivate);
    if (status !== 0n) throw new Error(`a conversion at 0x${gpa.toString(16)} ended with ${status}`);
  }

  /** One KVM_RUN. A refusal must have its reason. */
  async run(index = 0, task: Task = this.task): Promise<Exit> {
    const vcpu = this.vm.vcpus[index]!;
    let errno: string | null = null;
    try {
      await task.ioctl(vcpu.fd, KVM.RUN);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      expect(error.reason.text.length).toBeGreaterThan(10);
      errno = error.errno;
    }
    const { reason, union } = await readExit({ calls: task }, vcpu);
    return { name: exitName(reason), errno, union };
  }

  /** Runs and converts as the guest asks, until it is something else. */
  async runConverting(index = 0, task: Task = this.task): Promise<Exit> {
    for (;;) {
      const exit = await this.run(index, task);
      if (exit.name !== 'HYPERCALL' || exit.errno !== null) return exit;
      const { nr, args } = KVM_RUN_EXIT.HYPERCALL.decode(exit.union);
      expect(nr).toBe(BigInt(KVM_HC_MAP_GPA_RANGE));
      const [gpa = 0n, pages = 0n, attributes = 0n] = args;
      const range = { start: Number(gpa), end: Number(gpa) + Number(pages) * PAGE_4K };
      const isPrivate = (attributes & KVM_MAP_GPA_RANGE.ENC_STAT) !== 0n;
      const ret = await this.#answer(range, isPrivate, task);
      KVM_RUN_EXIT.HYPERCALL.patch(exit.union, { ret });
      await writeUnion({ calls: task }, this.vm.vcpus[index]!, exit.union);
    }
  }

  /** Runs until the guest says something, which it returns. */
  async listen(index = 0, task: Task = this.task): Promise<number> {
    const exit = await this.runConverting(index, task);
    const { direction, port, size, data_offset } = KVM_RUN_EXIT.IO.decode(exit.union);
    expect([exit.name, exit.errno, port, direction]).toEqual(['IO', null, UCALL_PORT, KVM_EXIT_IO.OUT]);
    const data = await task.load(this.vm.vcpus[index]!.runAddress + Number(data_offset), size);
    return new DataView(data.buffer, data.byteOffset).getUint32(0, true);
  }

  /** Converts [start, end) from user space, slot by slot. */
  async setPrivate({ start, end }: AddressRange, isPrivate: boolean): Promise<void> {
    for (const part of this.#parts(start, end)) await setPrivate(this.vm, part, isPrivate);
  }

  /** KVM_PRE_FAULT_MEMORY, once: the errno or null, and how many bytes are left. */
  async preFault(gpa: number, bytes: number, task: Task = this.task): Promise<PreFaulted> {
    const range = KVM_PRE_FAULT_MEMORY.encode({ gpa: BigInt(gpa), size: BigInt(bytes) });
    const left = (): number => Number(KVM_PRE_FAULT_MEMORY.decode(range).size);
    try {
      await task.ioctl(this.vm.vcpus[0]!.fd, KVM.PRE_FAULT_MEMORY, range);
      return { errno: null, left: left() };
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      expect(error.reason.text.length).toBeGreaterThan(10);
      return { errno: error.errno, left: left() };
    }
  }

  /** Allocates or punches private memory of [start, end). */
  async allocate({ start, end }: AddressRange, isPunched = false, task: Task = this.task): Promise<void> {
    const mode = FALLOC_FL.KEEP_SIZE | (isPunched ? FALLOC_FL.PUNCH_HOLE : 0);
    for (const part of this.#parts(start, end)) {
      const { fd, start: first } = slotAt(this.vm, part.start)!;
      await task.fallocate(fd!, mode, part.start - first, part.end - part.start);
    }
  }

  /** What user space sees at `gpa`, within a page. */
  hostLoad(gpa: number, bytes: number): Promise<Uint8Array> {
    return this.task.load(userAddressOf(this.vm, gpa), bytes);
  }

  hostStore(gpa: number, bytes: Uint8Array): Promise<void> {
    return this.task.store(userAddressOf(this.vm, gpa), bytes);
  }

  /** Closes everything; all of it must have come back. */
  async end(): Promise<void> {
    this.side.host.kernel.schedule = null;
    await this.vm.close();
    await this.exit();
  }

  /** Ends the process, which closes what is open; all of it must have come back. */
  exit(): Promise<void> {
    return this.#started.expectBalanced();
  }

  async #answer(range: AddressRange, isPrivate: boolean, task: Task): Promise<bigint> {
    try {
      await this.setPrivate(range, isPrivate);
      if (this.allocates && this.backing === 'split') await this.allocate(range, !isPrivate, task);
      return 0n;
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      return BigInt(ERRNO[error.errno]);
    }
  }

  #parts(start: number, end: number): AddressRange[] {
    return this.vm.slots
      .map((slot) => ({ start: Math.max(slot.start, start), end: Math.min(slot.end, end) }))
      .filter((part) => part.start < part.end);
  }
}

function buildVm(
  kit: Kit,
  calls: Started['session']['calls'],
  vcpus: number,
  backing: GuestBacking,
): Promise<GuestVm> {
  return GuestVm.build(calls, kit.vmType, async (vm) => {
    await vm.enable('EXIT_HYPERCALL', 1n << BigInt(KVM_HC_MAP_GPA_RANGE));
    await kit.init(vm);
    await addMemory(vm, LIBRARY_SLOT, backing);
    if (backing !== 'anonymous') await setPrivate(vm, LIBRARY_SLOT, true);
    const cpuid = await supportedCpuid(vm);
    for (let i = 0; i < vcpus; i++) await setCpuid(vm, await addVcpu(vm), cpuid);
    await kit.launch(vm);
  });
}
