/** A guest's second-stage fault: from guest frame to page to mapping, in the kernel's order (Linux host rules 3.6). */
import { hex, offsetIn, PAGE_4K, pfnOf } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { KVM_MEM } from '../abi/kvm/structs.ts';
import type { Task } from '../kernel/process/task.ts';
import type { Memslot } from './memslots.ts';
import type { Vcpu } from './vcpu.ts';
import type { VcpuExit } from './vcpu-exit.ts';
import type { Vm } from './vm.ts';

/** Pages of 4 KiB in one of 2 MiB. */
const LARGE_PAGES = 512;
const LARGE_ORDER = 9;

/** What a fault is about. `isPrivate` null: the attributes decide. `gpa` has no shared bit. @public */
export interface GuestFault {
  readonly gpa: number;
  readonly isPrivate: boolean | null;
  readonly isWrite: boolean;
}

/**
 * 'mapped': the guest can go on; 'retry': look again, something changed meanwhile; 'no-slot' and 'read-only': shared
 * memory that is to be emulated; otherwise user space has to do something about it.
 * @public
 */
export type FaultOutcome =
  | 'mapped'
  | 'retry'
  | 'no-slot'
  | 'read-only'
  | Extract<VcpuExit, { readonly kind: 'memory-fault' }>;

/** True when `gfn` is private: by its backing where that tracks it, else by the VM's attributes. @public */
export function isPrivateFrame(vm: Vm, slot: Memslot | undefined, gfn: number): boolean {
  const backing = slot?.backing;
  if (backing?.tracksPrivate === true) return backing.isPrivate(slot!, gfn);
  return vm.attributes.isPrivate(gfn);
}

/** Makes the guest see the page at `fault.gpa`, once; `task` is who runs the vCPU. @public */
export async function resolveFault(vcpu: Vcpu, fault: GuestFault, task: Task): Promise<FaultOutcome> {
  const { vm } = vcpu;
  const gfn = pfnOf(fault.gpa);
  const { generation } = vm.slots;
  const { count } = vm.invalidations;
  const slot = vm.slots.find(gfn);
  const isPrivateNow = isPrivateFrame(vm, slot, gfn);
  const isPrivate = fault.isPrivate ?? isPrivateNow;
  const refuse = (error: KernelError): FaultOutcome => memoryFault(gfn, isPrivate, error);
  if (isPrivate !== isPrivateNow) return refuse(mismatch(fault.gpa, isPrivate));
  if (slot === undefined) return isPrivate ? refuse(noSlot(fault.gpa)) : mmio(vcpu, gfn);
  if (vm.slots.isInvalid(slot) || vm.invalidations.isStale(count, gfn, gfn + 1)) return 'retry';

  const isReadOnly = (slot.flags & KVM_MEM.READONLY) !== 0;
  if (isReadOnly && fault.isWrite) return 'read-only';
  let page: { readonly pfn: number; readonly writable: boolean; readonly maxOrder: number };
  try {
    page = await pageOf(vm, slot, gfn, { isPrivate, isWrite: fault.isWrite, isReadOnly }, task);
  } catch (error) {
    if (error instanceof KernelError) return refuse(error);
    throw error;
  }

  if (vm.kernel.schedule !== null) await vm.kernel.schedule('guest-fault');
  if (!vm.mmuLock.tryAcquire()) await vm.mmuLock.acquire();
  // The vCPU is loaded where its thread woke up.
  vcpu.cpu = task.cpu;
  try {
    const level = mappingLevel(vm, slot, gfn, isPrivate, page);
    const pages = LARGE_PAGES ** level;
    const startGfn = gfn - (gfn % pages);
    if (vm.slots.generation !== generation || vm.invalidations.isStale(count, startGfn, startGfn + pages)) {
      return 'retry';
    }
    if (isPrivate && vm.backend.isMapped(gfn, true)) return 'mapped';
    const mapped = await vm.backend.map({
      gfn: startGfn,
      pfn: page.pfn - (gfn - startGfn),
      level,
      isPrivate,
      writable: page.writable,
      vcpu,
    });
    return mapped === 'done' ? 'mapped' : 'retry';
  } finally {
    vm.mmuLock.release();
  }
}

interface Access {
  readonly isPrivate: boolean;
  readonly isWrite: boolean;
  readonly isReadOnly: boolean;
}

async function pageOf(vm: Vm, slot: Memslot, gfn: number, access: Access, task: Task) {
  const { isPrivate, isWrite, isReadOnly } = access;
  if (isPrivate || slot.isBackingOnly) {
    if (slot.backing === null) throw noBacking(slot, gfn);
    const { pfn, maxOrder } = await slot.backing.guestPage(slot, gfn, task.lp.node);
    return { pfn, maxOrder, writable: !isReadOnly };
  }
  const { pfn, writable } = await vm.hostMemory.page(slot, gfn, isWrite, task);
  return { pfn, maxOrder: 0, writable: writable && !isReadOnly };
}

/** 1 where a mapping of 2 MiB fits: page, slot and attributes are alike all over it, and the backend agrees. */
function mappingLevel(
  vm: Vm,
  slot: Memslot,
  gfn: number,
  isPrivate: boolean,
  page: { readonly pfn: number; readonly maxOrder: number },
): 0 | 1 {
  if (page.maxOrder < LARGE_ORDER) return 0;
  const within = offsetIn(gfn, LARGE_PAGES);
  const start = gfn - within;
  const end = start + LARGE_PAGES;
  if (start < slot.baseGfn || end > slot.baseGfn + slot.pages) return 0;
  if (offsetIn(page.pfn, LARGE_PAGES) !== within) return 0;
  const { backing } = slot;
  const isUniform =
    backing?.tracksPrivate === true
      ? backing.isUniform(slot, start, end)
      : vm.attributes.isUniform(start, end, vm.attributes.get(gfn));
  return isUniform && vm.backend.maxLevel(gfn, isPrivate) >= 1 ? 1 : 0;
}

/** Shared memory where no slot is: the technology may have an answer of its own, else the access is emulated. */
async function mmio(vcpu: Vcpu, gfn: number): Promise<FaultOutcome> {
  const { backend, mmuLock } = vcpu.vm;
  if (backend.mapMmio === undefined) return 'no-slot';
  const mapped = await mmuLock.run(() => backend.mapMmio!(vcpu, gfn));
  return mapped === 'done' ? 'mapped' : 'retry';
}

function memoryFault(gfn: number, isPrivate: boolean, { errno, reason }: KernelError): FaultOutcome {
  const { code, text } = reason;
  return { kind: 'memory-fault', gpa: gfn * PAGE_4K, sizeBytes: PAGE_4K, isPrivate, errno, code, text };
}

function mismatch(gpa: number, isPrivate: boolean): KernelError {
  const [asked, is] = isPrivate ? ['private', 'shared'] : ['shared', 'private'];
  return new KernelError(
    'EFAULT',
    'attribute-mismatch',
    `the guest uses ${hex(gpa)} as ${asked} memory, and it is ${is}`,
  );
}

function noSlot(gpa: number): KernelError {
  return new KernelError('EFAULT', 'private-no-slot', `no slot has the private memory at ${hex(gpa)}`);
}

function noBacking(slot: Memslot, gfn: number): KernelError {
  return new KernelError(
    'EFAULT',
    'slot-without-gmem',
    `slot ${slot.id} has no guest_memfd for the private memory at ${hex(gfn * PAGE_4K)}`,
  );
}
