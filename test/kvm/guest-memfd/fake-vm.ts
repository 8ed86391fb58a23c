/** A VM that keeps count of what its guest maps, for tests of guest_memfd without KVM. */
import { PAGE_4K } from '../../../src/abi/address.ts';
import { HostKernel } from '../../../src/kernel/host-kernel.ts';
import { SleepLock } from '../../../src/kernel/process/lock.ts';
import { startProcess } from '../../../src/kernel/process/process.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import { createGuestMemfd } from '../../../src/kvm/guest-memfd/create.ts';
import { guestMemfdAt } from '../../../src/kvm/guest-memfd/descriptor.ts';
import type { GuestMemfdFile } from '../../../src/kvm/guest-memfd/file.ts';
import type { FileTechnology } from '../../../src/kvm/guest-memfd/file-technology.ts';
import { SW_PROTECTED_FILE } from '../../../src/kvm/guest-memfd/technologies.ts';
import type {
  GuestMemfdUser,
  InvalidationKind,
  InvalidationReason,
} from '../../../src/kvm/guest-memfd/user.ts';
import { type GuestMemfdOptions, VmFiles } from '../../../src/kvm/guest-memfd/vm-files.ts';
import type { Memslot } from '../../../src/kvm/memslots.ts';
import { Machine } from '../../../src/machine/machine.ts';
import { TINY } from '../../kernel/tiny-machine.ts';

export class FakeVm implements GuestMemfdUser {
  readonly kernel: HostKernel;
  technology: FileTechnology;
  readonly files: VmFiles;
  readonly slotsLock = new SleepLock();
  readonly slots = new Map<number, Memslot>();
  /** What the guest maps: page frame by guest frame. */
  readonly mapped = new Map<number, number>();
  /** Invalidations as they came. */
  readonly invalidations: {
    startGfn: number;
    endGfn: number;
    what: InvalidationKind;
    why: InvalidationReason;
  }[] = [];
  /** Invalidations that have begun and not ended. */
  open = 0;
  references = 1;

  constructor(kernel: HostKernel, technology: FileTechnology, options: Partial<GuestMemfdOptions>) {
    this.kernel = kernel;
    this.technology = technology;
    this.files = new VmFiles(options);
  }

  get(): void {
    this.references++;
  }

  async put(): Promise<void> {
    this.references--;
  }

  async invalidateStart(
    _slot: Memslot,
    startGfn: number,
    endGfn: number,
    what: InvalidationKind,
    why: InvalidationReason,
  ): Promise<void> {
    this.open++;
    this.invalidations.push({ startGfn, endGfn, what, why });
    await Promise.resolve();
    for (const gfn of [...this.mapped.keys()]) if (startGfn <= gfn && gfn < endGfn) this.mapped.delete(gfn);
  }

  invalidateEnd(): void {
    this.open--;
  }

  /** Makes a slot that shows `pages` pages of the file from `index` on. */
  async bind(
    id: number,
    file: GuestMemfdFile,
    baseGfn: number,
    index: number,
    pages: number,
  ): Promise<Memslot> {
    const slot: Memslot = {
      id,
      baseGfn,
      pages,
      flags: 4,
      userspaceAddress: 0,
      backing: null,
      backingIndex: index,
      isBackingOnly: file.isBackingOnly,
    };
    await this.slotsLock.run(() => file.bind(slot));
    this.slots.set(id, slot);
    return slot;
  }

  async unbind(id: number): Promise<void> {
    const slot = this.slots.get(id)!;
    this.slots.delete(id);
    for (let gfn = slot.baseGfn; gfn < slot.baseGfn + slot.pages; gfn++) this.mapped.delete(gfn);
    await this.slotsLock.run(async () => slot.backing?.unbind(slot));
  }

  /** A guest access to a page of the slot: the page frame it maps. */
  async touch(slot: Memslot, gfn: number): Promise<number> {
    const known = this.mapped.get(gfn);
    if (known !== undefined) return known;
    if (slot.backing === null) throw new Error('the slot has no backing');
    const { pfn } = await slot.backing.guestPage(slot, gfn, 0);
    this.mapped.set(gfn, pfn);
    return pfn;
  }
}

export interface Bench {
  readonly kernel: HostKernel;
  readonly task: Task;
  readonly vm: FakeVm;
  /** Makes a file of so many pages. */
  create(pages: number, flags?: bigint): Promise<{ fd: number; file: GuestMemfdFile }>;
  /** Free pages of the machine. */
  freePages(): number;
  /** Closes everything and throws when something is left. */
  end(): Promise<void>;
}

export async function startBench(
  technology: FileTechnology = SW_PROTECTED_FILE,
  options: Partial<GuestMemfdOptions> = {},
): Promise<Bench> {
  const kernel = new HostKernel(new Machine(TINY));
  await kernel.boot();
  const task = startProcess(kernel);
  const vm = new FakeVm(kernel, technology, options);
  const freePages = (): number => kernel.allocator.accounts().reduce((sum, { free }) => sum + free, 0);
  const freeAtFirst = freePages();
  const create = async (pages: number, flags = 0n) => {
    const fd = await createGuestMemfd(vm, task, { size: BigInt(pages * PAGE_4K), flags });
    return { fd, file: guestMemfdAt(vm, task, fd) };
  };
  const end = async (): Promise<void> => {
    await task.exit();
    const left = {
      pages: freeAtFirst - freePages(),
      references: vm.references,
      objects: kernel.openObjects.all,
      counted: kernel.pageRefs.size,
      invalidations: vm.open,
      files: vm.files.open.size,
    };
    const nothing = { pages: 0, references: 1, objects: {}, counted: 0, invalidations: 0, files: 0 };
    if (JSON.stringify(left) !== JSON.stringify(nothing))
      throw new Error(`left over: ${JSON.stringify(left)}`);
    kernel.allocator.audit();
  };
  return { kernel, task, vm, create, freePages, end };
}

/** A technology that writes down what is done to pages. */
export function recording(rules: Omit<FileTechnology, 'prepare' | 'makeShared' | 'reclaim'>): {
  readonly technology: FileTechnology;
  readonly calls: string[];
} {
  const calls: string[] = [];
  const technology: FileTechnology = {
    ...rules,
    prepare: async (_pfn, gfn, order) => void calls.push(`prepare ${gfn} ${order}`),
    makeShared: async (_pfn, pages) => void calls.push(`make-shared ${pages}`),
    reclaim: async (_pfn, pages) => void calls.push(`reclaim ${pages}`),
  };
  return { technology, calls };
}
