/** The other side of a guest_memfd: the VM that it was made for. */
import type { HostKernel } from '../../kernel/host-kernel.ts';
import type { SleepLock } from '../../kernel/process/lock.ts';
import type { Memslot } from '../memslots.ts';
import type { FileTechnology } from './file-technology.ts';
import type { VmFiles } from './vm-files.ts';

/** Why guest mappings have to go. @public */
export type InvalidationReason =
  | 'punch-hole'
  | 'convert-to-private'
  | 'convert-to-shared'
  | 'memory-failure'
  | 'release'
  /** The file got pages there, which the older design takes for a conversion to private. */
  | 'populate';

/** Which of the guest's mappings have to go. @public */
export type InvalidationKind = 'private' | 'shared' | 'both';

/** Who bound the file (a Vm). @public */
export interface GuestMemfdUser {
  readonly kernel: HostKernel;
  readonly technology: FileTechnology;
  /** The VM's files and what they have in common. */
  readonly files: VmFiles;
  /** Keeps slots as they are; taken before a file's invalidate lock. */
  readonly slotsLock: SleepLock;
  /** Reference count: a file keeps its VM. */
  get(): void;
  put(): Promise<void>;
  /**
   * Zaps what the guest maps in [startGfn, endGfn) of `slot`, with TLBs flushed; guest faults there retry or wait until
   * `invalidateEnd` is called with the same range, also after a failure. Takes the mmu lock. Throws ENOMEM where a large
   * page would have to be split, and never for ranges that split none.
   */
  invalidateStart(
    slot: Memslot,
    startGfn: number,
    endGfn: number,
    what: InvalidationKind,
    why: InvalidationReason,
  ): Promise<void>;
  invalidateEnd(slot: Memslot, startGfn: number, endGfn: number): void;
}
