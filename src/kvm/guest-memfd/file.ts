/** A guest_memfd as one VM has it open: a view of the inode's memory, with the slots that show it to the guest. */
import { PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import type { FileObject } from '../../kernel/process/file-object.ts';
import type { MemoryArea } from '../../kernel/process/memory-area.ts';
import type { FileStat, UserArg } from '../../kernel/process/system-calls.ts';
import type { Task } from '../../kernel/process/task.ts';
import type { Memslot } from '../memslots.ts';
import type { BackingPage, PrivateBacking } from '../private-backing.ts';
import { Bindings, type GuestRange } from './bindings.ts';
import { setMemoryAttributes2 } from './convert.ts';
import { fallocate } from './fallocate.ts';
import { describeFile } from './fdinfo.ts';
import { mmapFile } from './host-mapping.ts';
import type { GuestMemfdInode } from './inode.ts';
import type { GuestMemfdUser } from './user.ts';

/** @public */
export class GuestMemfdFile implements FileObject, PrivateBacking {
  readonly kind = 'guest_memfd';
  readonly inode: GuestMemfdInode;
  readonly user: GuestMemfdUser;
  readonly #bindings = new Bindings();

  /** Takes a reference to the VM. */
  constructor(inode: GuestMemfdInode, user: GuestMemfdUser) {
    this.inode = inode;
    this.user = user;
    user.get();
    inode.files.add(this);
    user.files.open.add(this);
  }

  /** Slots that show pages of the file. */
  get slots(): readonly Memslot[] {
    return this.#bindings.slots;
  }

  /** Conversion in place is on: the file's attributes count, not the VM's. */
  get tracksPrivate(): boolean {
    return this.inode.options.inPlaceConversion;
  }

  /** All faults are served from the file: it can be mapped, or has its attributes itself. */
  get isBackingOnly(): boolean {
    return this.inode.allowsMmap || this.tracksPrivate;
  }

  stat(): FileStat {
    const { number, pages, allocatedPages } = this.inode;
    return {
      inode: number,
      sizeBytes: pages * PAGE_4K,
      blockSizeBytes: PAGE_4K,
      blocks: (allocatedPages * PAGE_4K) / 512,
      links: 1,
    };
  }

  fdinfo(): Record<string, string> {
    return describeFile(this);
  }

  async fallocate(mode: number, offset: bigint, length: bigint, task: Task): Promise<void> {
    await fallocate(this.inode, mode, offset, length, task);
  }

  mmap(area: MemoryArea): void {
    mmapFile(this.inode, area);
  }

  async ioctl(request: number, arg: UserArg, task: Task): Promise<number> {
    if (request === KVM.SET_MEMORY_ATTRIBUTES2 && this.tracksPrivate) {
      return setMemoryAttributes2(this.inode, arg, task);
    }
    throw new KernelError('ENOTTY', 'gmem-ioctl', 'the guest_memfd has no such ioctl', { request });
  }

  /**
   * Shows pages from `slot.backingIndex` on to the guest in a new slot, whose backing it becomes. Throws EINVAL beyond the
   * end of the file or by state, EEXIST when another slot shows one of the pages. Caller holds slotsLock.
   */
  async bind(slot: Memslot): Promise<void> {
    const { inode } = this;
    if (slot.backingIndex + slot.pages > inode.pages) {
      throw new KernelError(
        'EINVAL',
        'gmem-bind-beyond',
        'the slot reaches beyond the end of the guest_memfd',
        {
          startIndex: slot.backingIndex,
          pages: slot.pages,
          filePages: inode.pages,
        },
      );
    }
    await inode.invalidateLock.write(() => {
      inode.life.check('bind');
      this.#bindings.add(slot);
      slot.backing = this;
      inode.life.advance(this.user.files.state);
    });
  }

  async unbind(slot: Memslot): Promise<void> {
    await this.inode.invalidateLock.write(() => {
      if (slot.backing !== this) return;
      this.#bindings.delete(slot);
      slot.backing = null;
    });
  }

  /** Where this VM's guest sees pages [start, end). */
  guestRanges(start: number, end: number): (GuestRange & { readonly user: GuestMemfdUser })[] {
    return this.#bindings.ranges(start, end).map((range) => ({ ...range, user: this.user }));
  }

  async guestPage(slot: Memslot, gfn: number, localNode: number): Promise<BackingPage> {
    const { inode } = this;
    return inode.invalidateLock.read(async () => {
      const index = this.#indexOf(slot, gfn);
      inode.life.check('guest-fault');
      const page = this.#healthyPage(index, localNode);
      if (inode.isPrivate(index)) await inode.technology.prepare?.(page.pfn, gfn, 0);
      return page;
    });
  }

  /**
   * Hands the page behind `gfn` to `fill`, which gives it its initial contents and makes it the guest's. Nobody converts
   * or punches it meanwhile. Throws EINVAL by state or where conversion in place is on and the page is shared, EFAULT,
   * EIO, ENOMEM, EHWPOISON as `guestPage`, and what `fill` throws.
   */
  async populate(
    slot: Memslot,
    gfn: number,
    localNode: number,
    fill: (pfn: number) => Promise<void>,
  ): Promise<void> {
    const { inode } = this;
    await inode.invalidateLock.write(async () => {
      const index = this.#indexOf(slot, gfn);
      inode.life.check('populate');
      const { pfn } = this.#healthyPage(index, localNode);
      if (this.tracksPrivate && !inode.isPrivate(index)) {
        throw new KernelError('EINVAL', 'gmem-populate-shared', `guest frame ${gfn} is shared`, {
          gfn,
          index,
        });
      }
      await fill(pfn);
    });
  }

  isPrivate(slot: Memslot, gfn: number): boolean {
    return this.inode.isPrivate(gfn - slot.baseGfn + slot.backingIndex);
  }

  isUniform(slot: Memslot, startGfn: number, endGfn: number): boolean {
    const shift = slot.backingIndex - slot.baseGfn;
    const isPrivate = this.inode.isPrivate(startGfn + shift);
    return this.inode.isUniform(startGfn + shift, endGfn + shift, isPrivate);
  }

  /**
   * The last reference is gone: slots stay without a backing, guests lose what they mapped, the VM loses a reference.
   * The memory goes with the inode's last file.
   */
  async release(): Promise<void> {
    const { inode, user } = this;
    await user.slotsLock.run(() =>
      inode.invalidateLock.write(async () => {
        const ranges = this.guestRanges(0, inode.pages);
        for (const { slot } of ranges) slot.backing = null;
        for (const { slot, startGfn, endGfn } of ranges) {
          await user.invalidateStart(slot, startGfn, endGfn, inode.mappingKind, 'release');
          user.invalidateEnd(slot, startGfn, endGfn);
        }
        this.#bindings.clear();
        inode.files.delete(this);
      }),
    );
    user.files.open.delete(this);
    await user.put();
    if (inode.files.size === 0) await inode.evict();
  }

  #indexOf(slot: Memslot, gfn: number): number {
    if (slot.backing !== this) {
      throw new KernelError('EFAULT', 'gmem-closed', `the guest_memfd of slot ${slot.id} was closed`, {
        slot: slot.id,
      });
    }
    const index = gfn - slot.baseGfn + slot.backingIndex;
    if (this.#bindings.at(index) === slot) return index;
    throw new KernelError('EIO', 'gmem-not-bound', `slot ${slot.id} is not bound to page ${index}`, {
      gfn,
      index,
    });
  }

  #healthyPage(index: number, localNode: number): BackingPage {
    const { inode } = this;
    const pfn = inode.page(index, localNode);
    if (!inode.kernel.pageRefs.isPoisoned(pfn)) return { pfn, maxOrder: inode.orderAt(index) };
    throw new KernelError('EHWPOISON', 'gmem-page-failed', `the memory of page ${index} has failed`, {
      index,
      pfn,
    });
  }
}
