/** A memfile as the private half of a memory slot (KVM_MEM_PRIVATE). Each slot hears of the file's changes itself. */
import { KernelError } from '../../abi/errno.ts';
import type { OpenFile } from '../../kernel/process/open-file.ts';
import type { Task } from '../../kernel/process/task.ts';
import type { GuestMemfdUser } from '../guest-memfd/user.ts';
import type { Memslot } from '../memslots.ts';
import type { BackingPage, PrivateBacking } from '../private-backing.ts';
import { Memfile, type MemfileNotifier } from './memfile.ts';

/** @public */
export class MemfileBacking implements PrivateBacking {
  readonly kind = 'memfile';
  /** A page is private when the file has it. */
  readonly tracksPrivate = true;
  readonly isBackingOnly = false;
  readonly #user: GuestMemfdUser;
  readonly #file: OpenFile;
  readonly #memfile: Memfile;
  #notifier: MemfileNotifier | null = null;

  constructor(user: GuestMemfdUser, file: OpenFile, memfile: Memfile) {
    this.#user = user;
    this.#file = file;
    this.#memfile = memfile;
  }

  /** Becomes the backing of a new slot, which keeps the file open. Other slots may show the same pages. */
  async bind(slot: Memslot): Promise<void> {
    this.#file.get();
    this.#notifier = this.#notifierOf(slot);
    this.#memfile.notifiers.add(this.#notifier);
    slot.backing = this;
  }

  async unbind(slot: Memslot): Promise<void> {
    if (this.#notifier === null) return;
    this.#memfile.notifiers.delete(this.#notifier);
    this.#notifier = null;
    slot.backing = null;
    await this.#reclaim(slot.backingIndex, slot.backingIndex + slot.pages);
    await this.#file.put();
  }

  async guestPage(slot: Memslot, gfn: number): Promise<BackingPage> {
    return this.#memfile.withPage(indexOf(slot, gfn), async (pfn) => {
      if (pfn === undefined) {
        throw new KernelError('EFAULT', 'memfile-hole', `the memory of guest frame ${gfn} was taken back`, {
          gfn,
        });
      }
      await this.#user.technology.prepare?.(pfn, gfn, 0);
      return { pfn, maxOrder: 0 };
    });
  }

  isPrivate(slot: Memslot, gfn: number): boolean {
    return this.#memfile.has(indexOf(slot, gfn));
  }

  isUniform(slot: Memslot, startGfn: number, endGfn: number): boolean {
    let pages = 0;
    const start = indexOf(slot, startGfn);
    for (const run of this.#memfile.runs(start, start + endGfn - startGfn)) pages += run.pages;
    return pages === 0 || pages === endGfn - startGfn;
  }

  #notifierOf(slot: Memslot): MemfileNotifier {
    const user = this.#user;
    const guestRange = (start: number, end: number): [startGfn: number, endGfn: number] => [
      slot.baseGfn + Math.max(start - slot.backingIndex, 0),
      slot.baseGfn + Math.min(end - slot.backingIndex, slot.pages),
    ];
    return {
      begin: async (start, end, why) => {
        const [startGfn, endGfn] = guestRange(start, end);
        if (startGfn >= endGfn) return;
        const isHole = why === 'invalidate';
        await user.invalidateStart(
          slot,
          startGfn,
          endGfn,
          isHole ? 'private' : 'shared',
          isHole ? 'punch-hole' : 'populate',
        );
        if (isHole) await this.#reclaim(indexOf(slot, startGfn), indexOf(slot, endGfn));
      },
      end: (start, end) => {
        const [startGfn, endGfn] = guestRange(start, end);
        if (startGfn < endGfn) user.invalidateEnd(slot, startGfn, endGfn);
      },
    };
  }

  /** No guest has pages [start, end) mapped any more: the technology gives them back. */
  async #reclaim(start: number, end: number): Promise<void> {
    for (const { pfn, pages } of this.#memfile.runs(start, end)) {
      await this.#user.technology.reclaim?.(pfn, pages);
    }
  }
}

/** The backing for a slot by descriptor. Throws EBADF, or EINVAL for a file that is not inaccessible. @public */
export function memfileAt(user: GuestMemfdUser, task: Task, fd: number): MemfileBacking {
  const file = task.process.files.get(fd);
  const { object } = file;
  if (object instanceof Memfile) return new MemfileBacking(user, file, object);
  throw new KernelError(
    'EINVAL',
    'memfile-accessible',
    `descriptor ${fd} is a ${object.kind} that user space reaches`,
    {
      fd,
      kind: object.kind,
    },
  );
}

function indexOf(slot: Memslot, gfn: number): number {
  return gfn - slot.baseGfn + slot.backingIndex;
}
