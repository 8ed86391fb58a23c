/** What races: VMs of every technology, with every way in which private memory can be backed. */
import { GIB, PAGE_4K } from '../../../src/abi/address.ts';
import { KVM_HC_MAP_GPA_RANGE } from '../../../src/abi/kvm/exits.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import {
  KVM_SEV,
  KVM_SEV_CMD,
  KVM_SEV_INIT,
  KVM_SEV_SNP_LAUNCH_FINISH,
  KVM_SEV_SNP_LAUNCH_START,
} from '../../../src/abi/kvm/sev.ts';
import {
  KVM_CPUID_ENTRY2,
  KVM_MEM,
  KVM_MEM_PRIVATE,
  KVM_USERSPACE_MEMORY_REGION,
  KVM_USERSPACE_MEMORY_REGION_EXT,
  KVM_USERSPACE_MEMORY_REGION2,
} from '../../../src/abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../../src/abi/kvm/vm-types.ts';
import { MFD } from '../../../src/abi/system-call-flags.ts';
import { loadDmaDevice } from '../../../src/kernel/process/dma-device.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import type { BackendName } from '../../../src/kvm/backend.ts';
import type { LoadOptions } from '../../../src/kvm/load-kvm.ts';
import { createHost, type Host, type HostOptions } from '../../../src/lab/host.ts';
import { type KvmHost, startKvm } from '../../../src/lab/kvm-host.ts';
import { genoaMachine } from '../../../src/lab/machines/genoa.ts';
import type { MachineDescription } from '../../../src/machine/description.ts';
import { type CpuidEntry, setCpuid } from '../../../src/vmm/vm/cpuid.ts';
import { addMemory, type GuestSlot, setPrivate } from '../../../src/vmm/vm/guest-memory.ts';
import { addVcpu } from '../../../src/vmm/vm/guest-vcpu.ts';
import { GuestVm } from '../../../src/vmm/vm/guest-vm.ts';
import { initTd, tdxCommand } from '../../../src/vmm/vm/td-commands.ts';
import { mapAnonymous, withBuffer } from '../../../src/vmm/vm/user-memory.ts';
import { TINY } from '../../kernel/tiny-machine.ts';
import { type DialectOf, GHCB_PAGES, pkvmDialect, plainDialect, snpDialect, tdxDialect } from './dialects.ts';
import type { Kind } from './ledger.ts';

/** First address of the guest's memory. */
export const BASE = GIB;

/** A host on which VMs race. */
export interface RaceHost extends Host, KvmHost {}

/** What user space does that may throw memory away. */
export type Loss = 'to-shared' | 'to-private' | 'punch' | 'dontneed' | 'slot';

export interface Subject {
  readonly name: string;
  readonly backend: BackendName;
  /** How private memory is backed; 'none' where there is none. */
  readonly backing: 'none' | 'split' | 'in-place' | 'memfile';
  readonly kvm: LoadOptions;
  readonly dialect: DialectOf;
  /** Addresses say what the guest takes memory for, so that it is never mistaken. */
  readonly tellsKinds: boolean;
  /** A page keeps its bytes when it is converted. */
  readonly hasOneMemory: boolean;
  /** Whose memory goes with what user space does; nothing else may ever be lost. */
  readonly loses: Readonly<Record<Loss, readonly Kind[]>>;
  /** Pages of the slot that races are about. */
  readonly pages: number;
}

const PRIVATE: readonly Kind[] = ['private'];
const SHARED: readonly Kind[] = ['shared'];
const BOTH: readonly Kind[] = ['private', 'shared'];
const NONE: readonly Kind[] = [];

/** A guest without a slot writes to no device and reads nothing. */
const SPLIT = {
  'to-shared': NONE,
  'to-private': NONE,
  punch: PRIVATE,
  dontneed: SHARED,
  slot: BOTH,
} as const;

const plain: Subject = {
  name: 'plain',
  backend: 'plain',
  backing: 'none',
  kvm: {},
  dialect: plainDialect,
  tellsKinds: false,
  hasOneMemory: false,
  loses: SPLIT,
  pages: 5,
};
const swProtected: Subject = { ...plain, name: 'sw-protected', backend: 'sw-protected', backing: 'split' };
const IN_PLACE = { backing: 'in-place', kvm: { inPlaceConversion: true } } as const;
const tdx: Subject = {
  ...plain,
  name: 'tdx',
  backend: 'tdx',
  backing: 'split',
  dialect: tdxDialect,
  tellsKinds: true,
  loses: { ...SPLIT, 'to-shared': PRIVATE, slot: PRIVATE },
};
/** A read of shared memory where the page is private finds ciphertext and no fault. */
const snp: Subject = {
  ...tdx,
  name: 'snp',
  backend: 'snp',
  dialect: snpDialect,
  loses: { ...SPLIT, 'to-private': SHARED, slot: NONE },
};
/** Both kinds are one page, and a conversion changes what its bytes mean. */
const REPLACED = { 'to-shared': BOTH, 'to-private': BOTH, punch: BOTH, dontneed: NONE } as const;
/** A large page, and some more that it has to leave out. */
const LARGE_PAGES = 512 + 4;

export const SUBJECTS = {
  plain,
  swProtected,
  swProtectedInPlace: {
    ...swProtected,
    ...IN_PLACE,
    name: 'sw-protected in place',
    hasOneMemory: true,
    loses: { ...REPLACED, 'to-shared': NONE, 'to-private': NONE, slot: BOTH },
  },
  swProtectedHuge: {
    ...swProtected,
    name: 'sw-protected with large pages',
    kvm: { hugePages: true },
    pages: LARGE_PAGES,
  },
  memfile: {
    ...swProtected,
    name: 'sw-protected by memfile',
    backing: 'memfile',
    kvm: { memfile: true },
    loses: { ...SPLIT, 'to-shared': PRIVATE },
  },
  tdx,
  tdxTogether: { ...tdx, name: 'tdx with an epoch for each zap', kvm: { tdx: { trackPer: 'zap' } } },
  tdxInPlace: { ...tdx, ...IN_PLACE, name: 'tdx in place', loses: { ...REPLACED, slot: PRIVATE } },
  tdxHuge: {
    ...tdx,
    name: 'tdx with large pages',
    kvm: { hugePages: true, tdx: { hugePages: true } },
    pages: LARGE_PAGES,
  },
  snp,
  snpInPlace: { ...snp, ...IN_PLACE, name: 'snp in place', loses: { ...REPLACED, slot: NONE } },
  snpHuge: { ...snp, name: 'snp with large pages', kvm: { hugePages: true }, pages: LARGE_PAGES },
  pkvm: {
    ...plain,
    ...IN_PLACE,
    name: 'pkvm',
    backend: 'pkvm',
    dialect: pkvmDialect,
    hasOneMemory: true,
    loses: { ...REPLACED, slot: BOTH },
  },
} as const satisfies Record<string, Subject>;

const TDX_OFF: MachineDescription = { ...TINY, keyIds: null, seamrr: null, module: null, cmrs: [] };
const SMALL_GENOA = genoaMachine({ memoryBytes: GIB, asids: 8, minSevAsid: 5 });

const MACHINES: Readonly<Record<BackendName, readonly [MachineDescription, HostOptions]>> = {
  plain: [TDX_OFF, {}],
  'sw-protected': [TDX_OFF, {}],
  tdx: [TINY, { hints: { hibernationDisabled: true } }],
  snp: [SMALL_GENOA, {}],
  pkvm: [TDX_OFF, { hypervisor: 'pkvm' }],
};

/** Boots a host for races of `subject`. */
export async function raceHost({ backend, kvm }: Subject): Promise<RaceHost> {
  const [description, options] = MACHINES[backend];
  const host = createHost(description, options);
  await host.kernel.boot();
  loadDmaDevice(host.kernel);
  return { ...host, ...(await startKvm(host, kvm)) };
}

const TYPES: Readonly<Record<BackendName, number>> = {
  plain: KVM_VM_TYPE.DEFAULT,
  'sw-protected': KVM_VM_TYPE.SW_PROTECTED,
  tdx: KVM_VM_TYPE.TDX,
  snp: KVM_VM_TYPE.SNP,
  pkvm: KVM_VM_TYPE.ARM_PROTECTED,
};

/** A VM of `subject`, ready to run; all its memory is private where there is private memory. */
export function buildVm(task: Task, subject: Subject, vcpus: number): Promise<GuestVm> {
  return GuestVm.build(task, TYPES[subject.backend], async (vm) => {
    if (subject.backend !== 'pkvm') await vm.enable('EXIT_HYPERCALL', 1n << BigInt(KVM_HC_MAP_GPA_RANGE));
    if (subject.backend === 'tdx') await beginTd(vm);
    const sev = subject.backend === 'snp' ? await beginSnp(vm) : null;
    await giveMemory(vm, task, subject);
    // Shared memory that nobody touches but SNP guests, so that there is always some slot.
    await addMemory(vm, { start: GHCB_PAGES, end: GHCB_PAGES + 4 * PAGE_4K }, 'anonymous');
    for (let i = 0; i < vcpus; i++) {
      const vcpu = await addVcpu(vm);
      await setCpuid(vm, vcpu, [cpuid({ function: 1 })]);
      if (subject.backend === 'tdx') await tdxCommand(task, vcpu.fd, 'INIT_VCPU', 0);
    }
    if (subject.backend === 'tdx') await tdxCommand(task, vm.fd, 'FINALIZE_VM', 0);
    if (sev !== null) await finishSnp(vm, sev);
  });
}

/** Guest physical addresses of 48 bits. */
const GPA_WIDTH = { function: 0x8000_0008, eax: 48 * 2 ** 16 };

function cpuid(values: Parameters<typeof KVM_CPUID_ENTRY2.encode>[0]): CpuidEntry {
  return KVM_CPUID_ENTRY2.decode(KVM_CPUID_ENTRY2.encode(values));
}

async function beginTd(vm: GuestVm): Promise<void> {
  await vm.enable('SPLIT_IRQCHIP', 24n);
  // Without SEPT_VE_DISABLE a guest hears of memory that it has not accepted.
  await initTd(vm.calls, vm.fd, { attributes: 0n, xfam: 3n }, [cpuid(GPA_WIDTH)]);
}

async function sevCommand({ calls, fd }: GuestVm, sev: number, id: number, structure: Uint8Array) {
  await withBuffer(calls, structure, (address) =>
    calls.ioctl(fd, KVM.MEMORY_ENCRYPT_OP, KVM_SEV_CMD.encode({ id, data: BigInt(address), sev_fd: sev })),
  );
}

async function beginSnp(vm: GuestVm): Promise<number> {
  const sev = await vm.calls.open('/dev/sev');
  vm.owned.add(() => vm.calls.close(sev));
  await sevCommand(vm, sev, KVM_SEV.INIT2, KVM_SEV_INIT.encode({}));
  return sev;
}

async function finishSnp(vm: GuestVm, sev: number): Promise<void> {
  await sevCommand(vm, sev, KVM_SEV.SNP_LAUNCH_START, KVM_SEV_SNP_LAUNCH_START.encode({ policy: 0x3_0000n }));
  await sevCommand(vm, sev, KVM_SEV.SNP_LAUNCH_FINISH, KVM_SEV_SNP_LAUNCH_FINISH.encode({}));
}

async function giveMemory(vm: GuestVm, task: Task, { backing, pages }: Subject): Promise<void> {
  const range = { start: BASE, end: BASE + pages * PAGE_4K };
  if (backing === 'memfile') {
    vm.slots.push(await addMemfile(vm, task, pages));
    return;
  }
  await addMemory(vm, range, backing === 'none' ? 'anonymous' : backing);
  if (backing !== 'none') await setPrivate(vm, range, true);
}

/** The slot of the design of 2022; every page is private once the file has it. */
async function addMemfile(vm: GuestVm, task: Task, pages: number): Promise<GuestSlot> {
  const bytes = pages * PAGE_4K;
  const userAddress = await mapAnonymous(task, bytes);
  const fd = task.memfdCreate('private', MFD.INACCESSIBLE);
  await task.ftruncate(fd, bytes);
  await task.fallocate(fd, 0, 0, bytes);
  const slot: GuestSlot = { id: 0, start: BASE, end: BASE + bytes, backing: 'split', userAddress, fd };
  await setSlot(task, vm.fd, slot, { backing: 'memfile' });
  return slot;
}

/** Makes the slot again, or with no size deletes it. */
export async function setSlot(
  task: Task,
  vm: number,
  slot: GuestSlot,
  { backing }: Pick<Subject, 'backing'>,
  size = slot.end - slot.start,
): Promise<void> {
  const common = {
    slot: slot.id,
    guest_phys_addr: BigInt(slot.start),
    memory_size: BigInt(size),
    userspace_addr: BigInt(slot.userAddress),
  };
  if (backing === 'memfile') {
    const region = KVM_USERSPACE_MEMORY_REGION.decode(
      KVM_USERSPACE_MEMORY_REGION.encode({ ...common, flags: KVM_MEM_PRIVATE }),
    );
    const bytes = KVM_USERSPACE_MEMORY_REGION_EXT.encode({
      region,
      private_offset: 0n,
      private_fd: slot.fd!,
    });
    await task.ioctl(vm, KVM.SET_USER_MEMORY_REGION, bytes);
    return;
  }
  if (slot.fd === null) {
    await task.ioctl(vm, KVM.SET_USER_MEMORY_REGION, KVM_USERSPACE_MEMORY_REGION.encode(common));
    return;
  }
  const region = { ...common, flags: KVM_MEM.GUEST_MEMFD, guest_memfd: slot.fd };
  await task.ioctl(vm, KVM.SET_USER_MEMORY_REGION2, KVM_USERSPACE_MEMORY_REGION2.encode(region));
}
