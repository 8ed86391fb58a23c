/** How the host sees a page of a guest: user space's ways to it, and what the memory itself holds. */
import { hex, PAGE_4K, pfnOf } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { UserFault } from '../../kernel/process/system-calls.ts';
import type { Task } from '../../kernel/process/task.ts';
import { GuestMemfdFile } from '../../kvm/guest-memfd/file.ts';
import { VmFile } from '../../kvm/vm-file.ts';
import { CpuException } from '../../machine/exceptions.ts';
import { slotAt, userAddressOf } from '../../vmm/vm/guest-memory.ts';
import type { GuestVm } from '../../vmm/vm/guest-vm.ts';
import { mapFile } from '../../vmm/vm/user-memory.ts';

/** One way to look, and what came of it. @public */
export interface Look {
  readonly how: 'memory' | 'guest_memfd' | 'physical' | 'store';
  /** What was read, as text where it is text; an errno, a signal or an exception with its reason. */
  readonly result: string;
  /** The bytes, where some were read. */
  readonly bytes: Uint8Array | null;
}

/** User space reads the page's shared side, where it has it mapped. @public */
export async function lookAtMemory(vm: GuestVm, gpa: number, length: number): Promise<Look> {
  return look('memory', () => vm.calls.load(userAddressOf(vm, gpa), length));
}

/** User space maps the guest_memfd and reads the page there. @public */
export async function lookAtFile(vm: GuestVm, gpa: number, length: number): Promise<Look> {
  const { fd, start, end } = slotAt(vm, gpa)!;
  return look('guest_memfd', async () => {
    const address = await mapFile(vm.calls, fd!, end - start);
    try {
      return await vm.calls.load(address + (gpa - start), length);
    } finally {
      await vm.calls.munmap(address, end - start);
    }
  });
}

/** The kernel reads the page's memory by its physical address; null where the guest has no page there. @public */
export async function lookAtPhysical(
  task: Task,
  vm: GuestVm,
  gpa: number,
  length: number,
): Promise<Look | null> {
  const pfn = pfnBehind(task, vm, gpa);
  if (pfn === null) return null;
  return look('physical', async () => task.lp.load(pfn * PAGE_4K, length));
}

/** The kernel writes to the page's memory; null where the guest has no page there. For machines that know owners. @public */
export async function tryStore(task: Task, vm: GuestVm, gpa: number): Promise<Look | null> {
  const pfn = pfnBehind(task, vm, gpa);
  if (pfn === null) return null;
  const bytes = new TextEncoder().encode('overwritten');
  return look('store', async () => {
    task.lp.store(pfn * PAGE_4K, bytes);
    return bytes;
  });
}

/** Page frame of the private page at `gpa`, or where there is no guest_memfd that of the page itself. */
function pfnBehind(task: Task, vm: GuestVm, gpa: number): number | null {
  const { object } = task.process.files.get(vm.fd);
  if (!(object instanceof VmFile)) throw new Error(`descriptor ${vm.fd} is no VM`);
  const slot = object.vm.slots.find(pfnOf(gpa));
  if (slot === undefined) return null;
  const { backing } = slot;
  if (!(backing instanceof GuestMemfdFile)) return task.process.memory.pfnAt(pfnOf(userAddressOf(vm, gpa)));
  const index = pfnOf(gpa) - slot.baseGfn + slot.backingIndex;
  const [run] = backing.inode.runs(index, index + 1);
  return run === undefined ? null : run.pfn + (index - run.index);
}

async function look(how: Look['how'], read: () => Promise<Uint8Array>): Promise<Look> {
  try {
    const bytes = await read();
    return { how, result: describeBytes(bytes), bytes };
  } catch (error) {
    return { how, result: refusalOf(error), bytes: null };
  }
}

function refusalOf(error: unknown): string {
  if (error instanceof KernelError) return `${error.errno}: ${error.reason.text}`;
  if (error instanceof UserFault) return `${error.signal}: ${error.reason}`;
  if (error instanceof CpuException) return error.message;
  throw error;
}

const SHOWN_BYTES = 16;

/** Text in quotes, zeroes by that word, anything else by its first bytes. */
function describeBytes(bytes: Uint8Array): string {
  if (bytes.every((byte) => byte === 0)) return 'zeroes';
  const end = bytes.findLastIndex((byte) => byte !== 0) + 1;
  const shown = bytes.subarray(0, end);
  if (shown.every((byte) => byte >= 0x20 && byte < 0x7f)) return `"${new TextDecoder().decode(shown)}"`;
  const start = [...bytes.subarray(0, SHOWN_BYTES)].map((byte) => byte.toString(16).padStart(2, '0'));
  return `noise (${start.join(' ')} ...)`;
}

/** `guest physical 0x2000000 (host physical 0x41d000)`. @public */
export function addressesOf(task: Task, vm: GuestVm, gpa: number): string {
  const pfn = pfnBehind(task, vm, gpa);
  return pfn === null ? hex(gpa) : `${hex(gpa)} (host physical ${hex(pfn * PAGE_4K)})`;
}
