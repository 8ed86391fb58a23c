/** Memory of a VM: slots, what backs them, and conversion between private and shared. */
import { type AddressRange, hex } from '../../abi/address.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import {
  GUEST_MEMFD_FLAG,
  KVM_CREATE_GUEST_MEMFD,
  KVM_MEM,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_MEMORY_ATTRIBUTES,
  KVM_MEMORY_ATTRIBUTES2,
  KVM_USERSPACE_MEMORY_REGION,
  KVM_USERSPACE_MEMORY_REGION2,
} from '../../abi/kvm/structs.ts';
import { FALLOC_FL, MADV } from '../../abi/system-call-flags.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';
import { doing } from './doing.ts';
import type { GuestVm } from './guest-vm.ts';
import { fillMemory, mapAnonymous, mapFile } from './user-memory.ts';

/**
 * What backs a slot: anonymous memory alone; a guest_memfd for private pages beside anonymous memory for shared ones; or
 * one guest_memfd, mapped by user space, whose pages are converted where they are.
 * @public
 */
export type GuestBacking = 'anonymous' | 'split' | 'in-place';

/** A slot: guest physical addresses [start, end) in bytes. @public */
export interface GuestSlot extends AddressRange {
  readonly id: number;
  readonly backing: GuestBacking;
  /** Where user space sees the shared pages. */
  readonly userAddress: number;
  /** Descriptor of the guest_memfd; null for anonymous memory. Offsets in it are from `start`. */
  readonly fd: number | null;
}

/** Gives the VM memory at `range`, in whole pages. @public */
export async function addMemory(
  vm: GuestVm,
  { start, end }: AddressRange,
  backing: GuestBacking,
): Promise<GuestSlot> {
  const { calls, owned } = vm;
  const bytes = end - start;
  return doing(`giving the VM memory at ${hex(start)}`, async () => {
    const fd = backing === 'anonymous' ? null : await createFile(vm, bytes, backing);
    const userAddress = await (backing === 'in-place'
      ? mapFile(calls, fd!, bytes)
      : mapAnonymous(calls, bytes));
    owned.add(() => calls.munmap(userAddress, bytes));
    const slot: GuestSlot = { id: vm.slots.length, start, end, backing, userAddress, fd };
    await setRegion(vm, slot);
    vm.slots.push(slot);
    return slot;
  });
}

async function createFile(
  { calls, fd: vm, owned }: GuestVm,
  bytes: number,
  backing: GuestBacking,
): Promise<number> {
  const flags = backing === 'in-place' ? GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED : 0n;
  const request = KVM_CREATE_GUEST_MEMFD.encode({ size: BigInt(bytes), flags });
  const fd = await calls.ioctl(vm, KVM.CREATE_GUEST_MEMFD, request);
  owned.add(() => calls.close(fd));
  return fd;
}

async function setRegion({ calls, fd: vm }: GuestVm, slot: GuestSlot): Promise<void> {
  const region = {
    slot: slot.id,
    guest_phys_addr: BigInt(slot.start),
    memory_size: BigInt(slot.end - slot.start),
    userspace_addr: BigInt(slot.userAddress),
  };
  if (slot.fd === null) {
    await calls.ioctl(vm, KVM.SET_USER_MEMORY_REGION, KVM_USERSPACE_MEMORY_REGION.encode(region));
    return;
  }
  const request = { ...region, flags: KVM_MEM.GUEST_MEMFD, guest_memfd: slot.fd };
  await calls.ioctl(vm, KVM.SET_USER_MEMORY_REGION2, KVM_USERSPACE_MEMORY_REGION2.encode(request));
}

/** The slot that holds a guest physical address. @public */
export function slotAt({ slots }: GuestVm, gpa: number): GuestSlot | undefined {
  return slots.find(({ start, end }) => start <= gpa && gpa < end);
}

/** Where user space sees the shared page at `gpa`. Throws Error where the VM has no memory. @public */
export function userAddressOf(vm: GuestVm, gpa: number): number {
  const slot = slotAt(vm, gpa);
  if (slot === undefined) throw new Error(`the VM has no memory at ${hex(gpa)}`);
  return slot.userAddress + (gpa - slot.start);
}

/** Writes bytes to memory that is shared, or not yet private. @public */
export async function writeGuest(vm: GuestVm, gpa: number, bytes: Uint8Array): Promise<void> {
  await doing('filling memory for the guest', () => fillMemory(vm.calls, userAddressOf(vm, gpa), bytes));
}

/** Makes `range`, which lies in one slot, private or shared; nothing else happens to its pages. @public */
export async function setPrivate(
  vm: GuestVm,
  { start, end }: AddressRange,
  isPrivate: boolean,
): Promise<void> {
  const { calls } = vm;
  const size = BigInt(end - start);
  const attributes = isPrivate ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n;
  const slot = slotAt(vm, start);
  await doing(`making [${hex(start)}, ${hex(end)}) ${isPrivate ? 'private' : 'shared'}`, async () => {
    if (slot?.backing === 'in-place') {
      const request = KVM_MEMORY_ATTRIBUTES2.encode({ offset: BigInt(start - slot.start), size, attributes });
      await calls.ioctl(slot.fd!, KVM.SET_MEMORY_ATTRIBUTES2, request);
    } else {
      const request = KVM_MEMORY_ATTRIBUTES.encode({ address: BigInt(start), size, attributes });
      await calls.ioctl(vm.fd, KVM.SET_MEMORY_ATTRIBUTES, request);
    }
  });
}

/**
 * Converts `range` for the guest. With `discards` the memory that backed its other kind goes back to the host, as VMMs do
 * it; without it both kinds keep a page each.
 * @public
 */
export async function convertMemory(
  vm: GuestVm,
  range: AddressRange,
  isPrivate: boolean,
  discards: boolean,
): Promise<void> {
  const parts = vm.slots
    .map((slot) => ({ slot, start: Math.max(slot.start, range.start), end: Math.min(slot.end, range.end) }))
    .filter(({ start, end }) => start < end);
  for (const { slot, start, end } of parts) {
    await setPrivate(vm, { start, end }, isPrivate);
    if (discards && slot.backing === 'split') await discard(vm.calls, slot, { start, end }, !isPrivate);
  }
}

/** Gives the private or the shared pages of a range back to the host. */
async function discard(
  calls: SystemCalls,
  slot: GuestSlot,
  { start, end }: AddressRange,
  ofPrivate: boolean,
): Promise<void> {
  const offset = start - slot.start;
  if (ofPrivate)
    await calls.fallocate(slot.fd!, FALLOC_FL.PUNCH_HOLE | FALLOC_FL.KEEP_SIZE, offset, end - start);
  else await calls.madvise(slot.userAddress + offset, end - start, MADV.DONTNEED);
}

/** Bytes of host memory that the private pages of all slots take. @public */
export function privateBytes({ calls, slots }: GuestVm): number {
  const files = slots.flatMap(({ fd }) => (fd === null ? [] : [fd]));
  return files.reduce((sum, fd) => sum + calls.fstat(fd).blocks * 512, 0);
}
