/** What differs between technologies. A backend is made with its VM and lives as long. */
import type { Reason } from '../abi/errno.ts';
import type { HostKernel } from '../kernel/host-kernel.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import type { FileTechnology } from './guest-memfd/file-technology.ts';
import type { Vcpu } from './vcpu.ts';
import type { VcpuExit } from './vcpu-exit.ts';
import type { Vm } from './vm.ts';

/** @public */
export type BackendName = 'plain' | 'sw-protected' | 'tdx' | 'snp' | 'pkvm';

/** Which guest mappings to remove. @public */
export type ZapKind = 'private' | 'shared' | 'both';

/** One mapping to make. `level` 0 is 4 KiB, 1 is 2 MiB; gfn and pfn are aligned to it. @public */
export interface MapRequest {
  readonly gfn: number;
  readonly pfn: number;
  readonly level: number;
  readonly isPrivate: boolean;
  readonly writable: boolean;
  readonly vcpu: Vcpu;
}

/** @public */
export interface Backend {
  readonly name: BackendName;
  readonly hasPrivateMemory: boolean;
  /** The host cannot see registers: KVM_GET_REGS and its like give EINVAL. No slot can be read-only. */
  readonly hasProtectedState: boolean;
  /** Bit of a GPA that the guest sets for shared accesses (tdx), and that addresses in slots do not have; null: none. */
  readonly sharedBit: number | null;
  /** Rules for the guest_memfds of this VM. */
  readonly file: FileTechnology;
  /** Upper limit that the technology puts on vCPUs, or null. */
  readonly maxVcpus: number | null;

  /** Refuses KVM_CREATE_VCPU: throws KernelError. Caller holds vm.lock. */
  checkCreateVcpu(vcpuId: number): void;
  /** False while the host still sees and sets the registers of a vCPU with protected state (snp: until it is measured). */
  protectsRegisters?(vcpu: Vcpu): boolean;
  /** True where ends of interrupts do not reach KVM, which so cannot be the I/O APIC (tdx). */
  readonly protectsEoi?: boolean;
  /** True where the guest's TSC is not KVM's to scale (tdx). */
  readonly protectsTsc?: boolean;
  /** Throws ENOMEM, with nothing left. Caller holds vm.lock. */
  createVcpu(vcpu: Vcpu): void;
  freeVcpu(vcpu: Vcpu): Promise<void>;
  /** Refuses KVM_RUN before the technology's set-up is complete: throws KernelError. */
  checkRun(vcpu: Vcpu): void;
  /** Refuses KVM_PRE_FAULT_MEMORY: throws EOPNOTSUPP before the VM is final. */
  checkPreFault(): void;

  /** Largest level at which the pages at `gfn` can be mapped. */
  maxLevel(gfn: number, isPrivate: boolean): number;
  /**
   * Makes `gfn` map `pfn` for the guest (secure EPT, NPT, stage 2). 'retry' when the technology was busy; the fault is
   * then tried again from the start. Throws KernelError (EIO with `vm.bug`) for what should not happen. Caller holds
   * the mmu lock.
   */
  map(request: MapRequest): Promise<'done' | 'retry'>;
  /**
   * What the guest gets where it accesses shared memory that no slot has (tdx: #VE in the guest). Absent: the access
   * exits and is emulated. Caller holds the mmu lock.
   */
  mapMmio?(vcpu: Vcpu, gfn: number): Promise<'done' | 'retry'>;
  /**
   * Removes what the guest has of that kind in [startGfn, endGfn); no translation is left in any TLB when it returns.
   * Caller holds the mmu lock.
   */
  zap(startGfn: number, endGfn: number, what: ZapKind): Promise<void>;
  /** True when `gfn` has a mapping of that kind, present or pending. */
  isMapped(gfn: number, isPrivate: boolean): boolean;
  /** True when a 2 MiB mapping of that kind has `gfn`. Absent: all are of 4 KiB. */
  isLarge?(gfn: number, isPrivate: boolean): boolean;
  /**
   * One entry, until the next exit that the kernel must see. `vcpu.cpu` is the processor; the backend leaves the guest
   * when `vcpu.isKicked`.
   */
  enter(vcpu: Vcpu): Promise<VcpuExit>;
  /** Physical address by which the machine knows the vCPU: its VMCS, VMSA, TDVPR. */
  guestAddress(vcpu: Vcpu): number;

  /** KVM_ENABLE_CAP of the technology's own capabilities: true when it was one. */
  enableCap?(cap: number, args: readonly bigint[]): boolean;
  /** KVM_CHECK_EXTENSION at VM scope where the technology answers otherwise; undefined for the common answer. */
  checkExtension?(cap: number): number | undefined;
  /** KVM_MEMORY_ENCRYPT_OP on the VM; absent: ENOTTY. Takes its locks itself. */
  memoryEncryptOp?(task: Task, arg: UserArg): Promise<number>;
  /** KVM_MEMORY_ENCRYPT_OP on a vCPU; absent: EINVAL. Takes its locks itself. */
  vcpuMemoryEncryptOp?(vcpu: Vcpu, task: Task, arg: UserArg): Promise<number>;

  /** First step of tearing down, while slots and files are still there: what must precede removal of pages. */
  prepareDestroy?(): Promise<void>;
  /** Last step: slots, vCPUs and files are gone; every page and key is accounted for when it returns. */
  destroyVm(): Promise<void>;
}

/** True for an address that is another name for one without the shared bit. @public */
export function isAlias({ sharedBit }: Backend, gpa: bigint): boolean {
  return sharedBit !== null && ((gpa >> BigInt(sharedBit)) & 1n) === 1n;
}

/** A kind of VM that this kernel may offer. @public */
export interface Technology {
  readonly name: BackendName;
  /** The argument of KVM_CREATE_VM. */
  readonly vmType: number;
  /** Why the host cannot run such VMs, found when KVM loads; null when it can. */
  probe(kernel: HostKernel): Promise<Reason | null> | Reason | null;
  /** Makes the backend of a new VM. Throws KernelError. */
  create: BackendFactory;
  /** An attribute of /dev/kvm that is the technology's (KVM_GET_DEVICE_ATTR); undefined where it is none. */
  deviceAttribute?(group: number, attribute: bigint): bigint | undefined;
  /** KVM_MEMORY_ENCRYPT_OP on VMs of types that have none, where the technology is there. Throws KernelError. */
  refuseEncryption?(task: Task, arg: UserArg): Promise<never>;
}

/** @public */
export type BackendFactory = (vm: Vm) => Backend | Promise<Backend>;
