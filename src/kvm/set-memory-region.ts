/** KVM_SET_USER_MEMORY_REGION and REGION2, in the kernel's order of checks (Linux host rules 3.4). */
import { hex, PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import {
  KVM_MEM,
  KVM_MEM_PRIVATE,
  KVM_USERSPACE_MEMORY_REGION,
  KVM_USERSPACE_MEMORY_REGION_EXT,
  KVM_USERSPACE_MEMORY_REGION2,
} from '../abi/kvm/structs.ts';
import type { ValuesOf } from '../abi/struct.ts';
import { USER_END } from '../kernel/process/address-space.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import { isAlias } from './backend.ts';
import { changeSlot, type SlotChange } from './change-slot.ts';
import { guestMemfdAt } from './guest-memfd/descriptor.ts';
import { MAX_SLOT_PAGES, MAX_SLOTS } from './kvm-options.ts';
import { memfileAt } from './memfile/backing.ts';
import type { Memslot } from './memslots.ts';
import type { Vm } from './vm.ts';

type Region = ValuesOf<typeof KVM_USERSPACE_MEMORY_REGION2>;

const PAGE = BigInt(PAGE_4K);
const ADDRESS_END = 1n << 64n;
const V1_FLAGS = KVM_MEM.LOG_DIRTY_PAGES | KVM_MEM.READONLY;
/** Guest frames end where physical addresses of 52 bits do. */
const GPA_END = 1n << 52n;

/** With the design before guest_memfd also slots with KVM_MEM_PRIVATE, whose structure is longer. @public */
export async function setUserMemoryRegion(vm: Vm, arg: UserArg, task: Task): Promise<number> {
  const bytes = await task.copyIn(arg, KVM_USERSPACE_MEMORY_REGION.bytes);
  const region = { ...NO_FILE, ...KVM_USERSPACE_MEMORY_REGION.decode(bytes) };
  if (vm.options.memfile && (region.flags & KVM_MEM_PRIVATE) !== 0) {
    const long = await task.copyIn(arg, KVM_USERSPACE_MEMORY_REGION_EXT.bytes);
    const { private_offset, private_fd } = KVM_USERSPACE_MEMORY_REGION_EXT.decode(long);
    const withFile = { ...region, guest_memfd_offset: private_offset, guest_memfd: private_fd };
    return setRegion(vm, withFile, task, memfileAt);
  }
  if ((region.flags & ~V1_FLAGS) !== 0) {
    throw invalid('slot-flags', 'KVM_SET_USER_MEMORY_REGION takes LOG_DIRTY_PAGES and READONLY only', region);
  }
  return setRegion(vm, region, task, guestMemfdAt);
}

/** @public */
export async function setUserMemoryRegion2(vm: Vm, arg: UserArg, task: Task): Promise<number> {
  const bytes = await task.copyIn(arg, KVM_USERSPACE_MEMORY_REGION2.bytes);
  return setRegion(vm, KVM_USERSPACE_MEMORY_REGION2.decode(bytes), task, guestMemfdAt);
}

/** What can back a slot: a file by descriptor. */
interface SlotFile {
  readonly isBackingOnly: boolean;
  bind(slot: Memslot): Promise<void>;
  unbind(slot: Memslot): Promise<void>;
}

type FileAt = (vm: Vm, task: Task, fd: number) => SlotFile;

const NO_FILE = { guest_memfd_offset: 0n, guest_memfd: 0, pad1: 0, pad2: [] };

async function setRegion(vm: Vm, region: Region, task: Task, fileAt: FileAt): Promise<number> {
  if (region.slot % 0x1_0000 >= MAX_SLOTS) {
    throw invalid('slot-id', `slots have the numbers 0 to ${MAX_SLOTS - 1}`, region);
  }
  await vm.slotsLock.run(async () => {
    checkRegion(vm, region);
    const old = vm.slots.get(region.slot);
    const change = changeOf(region, old);
    if (change === null) return;
    if (change === 'delete') return changeSlot(vm, change, old, null);
    if (change !== 'flags') checkOverlap(vm, region);
    const isGmem = (region.flags & KVM_MEM.GUEST_MEMFD) !== 0;
    const file = isGmem ? fileAt(vm, task, region.guest_memfd) : null;
    const slot = slotOf(region, file);
    await file?.bind(slot);
    try {
      checkGuestAddresses(vm, region);
    } catch (error) {
      await file?.unbind(slot);
      throw error;
    }
    await changeSlot(vm, change, old, slot);
  });
  return 0;
}

/** What is wrong with a region whatever slots there are. */
function checkRegion({ backend }: Vm, region: Region): void {
  const { slot, flags, guest_phys_addr: gpa, memory_size: size, userspace_addr: user } = region;
  const isGmem = (flags & KVM_MEM.GUEST_MEMFD) !== 0;
  const mayBeReadOnly = !isGmem && !backend.hasProtectedState;
  const known =
    KVM_MEM.GUEST_MEMFD | (isGmem ? 0 : KVM_MEM.LOG_DIRTY_PAGES) | (mayBeReadOnly ? KVM_MEM.READONLY : 0);
  if ((flags & ~known) !== 0) {
    throw invalid('slot-flags', `such a slot takes the flags ${hex(known)}, not ${hex(flags >>> 0)}`, region);
  }
  if (size % PAGE !== 0n)
    throw invalid('slot-size-unaligned', 'the size must be a multiple of 4 KiB', region);
  if (gpa % PAGE !== 0n) {
    throw invalid('slot-gpa-unaligned', 'the guest physical address must be a multiple of 4 KiB', region);
  }
  if (user % PAGE !== 0n || user + size > BigInt(USER_END)) {
    throw invalid('slot-user-address', 'the user address must be one of the process, in whole pages', region);
  }
  const { guest_memfd_offset: offset } = region;
  if (isGmem && (offset % PAGE !== 0n || offset + size >= ADDRESS_END)) {
    throw invalid('slot-file-offset', 'the offset in the file must be whole pages and must not wrap', region);
  }
  if (slot >= 0x1_0000) throw invalid('slot-address-space', 'there is one address space, 0', region);
  if (gpa + size >= ADDRESS_END) throw invalid('slot-gpa-wraps', 'the guest range wraps around', region);
  if (size / PAGE > MAX_SLOT_PAGES) {
    throw invalid('slot-too-large', `a slot has at most ${MAX_SLOT_PAGES} pages`, region);
  }
}

/** Throws EINVAL where guests have no such addresses. */
function checkGuestAddresses({ backend }: Vm, region: Region): void {
  const end = region.guest_phys_addr + region.memory_size;
  if (end > GPA_END) {
    throw invalid('slot-gpa-beyond', `guest physical addresses end at ${hex(GPA_END)}`, region);
  }
  if (isAlias(backend, end - 1n)) {
    throw invalid(
      'slot-gpa-alias',
      'the addresses have the bit that tells shared from private memory',
      region,
    );
  }
}

/** Null where nothing changes. Throws EINVAL for what an existing slot cannot become. */
function changeOf(region: Region, old: Memslot | undefined): SlotChange | null {
  if (region.memory_size === 0n) {
    if (old === undefined) throw invalid('slot-missing', `there is no slot ${region.slot} to delete`, region);
    return 'delete';
  }
  if (old === undefined) return 'create';
  if ((region.flags & KVM_MEM.GUEST_MEMFD) !== 0) {
    throw invalid('slot-gmem-fixed', 'a slot with guest_memfd can only be deleted', region);
  }
  const isOtherMemory =
    region.userspace_addr !== BigInt(old.userspaceAddress) || region.memory_size / PAGE !== BigInt(old.pages);
  if (isOtherMemory || ((region.flags ^ old.flags) & (KVM_MEM.READONLY | KVM_MEM.GUEST_MEMFD)) !== 0) {
    throw invalid(
      'slot-fixed',
      `of slot ${region.slot} only the guest physical address and dirty logging can change`,
      region,
    );
  }
  if (region.guest_phys_addr / PAGE !== BigInt(old.baseGfn)) return 'move';
  return region.flags === old.flags ? null : 'flags';
}

function slotOf(region: Region, file: SlotFile | null): Memslot {
  return {
    id: region.slot,
    baseGfn: Number(region.guest_phys_addr / PAGE),
    pages: Number(region.memory_size / PAGE),
    flags: region.flags,
    userspaceAddress: Number(region.userspace_addr),
    backing: null,
    backingIndex: Number(region.guest_memfd_offset / PAGE),
    isBackingOnly: file?.isBackingOnly ?? false,
  };
}

function checkOverlap(vm: Vm, region: Region): void {
  const startGfn = Number(region.guest_phys_addr / PAGE);
  const others = vm.slots.overlapping(startGfn, startGfn + Number(region.memory_size / PAGE));
  const other = others.find(({ id }) => id !== region.slot);
  if (other === undefined) return;
  throw new KernelError('EEXIST', 'slot-overlaps', `slot ${other.id} has some of these guest frames`, {
    slot: region.slot,
    other: other.id,
  });
}

function invalid(code: string, text: string, region: Region): KernelError {
  return new KernelError('EINVAL', code, text, { ...region });
}
