/** The guest_memfds of one VM, and the state of life that its technology has brought them to. */

import type { GuestMemfdFile } from './file.ts';
import { type FileState, isBefore } from './file-technology.ts';

/** Module parameters of KVM as far as guest_memfds go. @public */
export interface GuestMemfdOptions {
  /** gmem_in_place_conversion: attributes belong to files instead of VMs. */
  readonly inPlaceConversion: boolean;
  /** Holes of 2 MiB are filled with one chunk where memory allows; kernels today allocate 4 KiB pages only. */
  readonly hugePages: boolean;
  /** The design before guest_memfd: slots take memfds of MFD_INACCESSIBLE. */
  readonly memfile: boolean;
}

/** What kernels do unless told otherwise. @public */
export const DEFAULT_GUEST_MEMFD_OPTIONS: GuestMemfdOptions = {
  inPlaceConversion: false,
  hugePages: false,
  memfile: false,
};

/** @public */
export class VmFiles {
  readonly options: GuestMemfdOptions;
  /** Files that are open. */
  readonly open = new Set<GuestMemfdFile>();
  #state: FileState = 'bound';

  constructor(options: Partial<GuestMemfdOptions> = {}) {
    this.options = { ...DEFAULT_GUEST_MEMFD_OPTIONS, ...options };
  }

  /** State that a file takes when it is bound: 'bound', or later when the VM is further. */
  get state(): FileState {
    return this.#state;
  }

  /**
   * The backend says how far the VM is: bound files go on to `state`, and those bound later join them. Throws EBUSY,
   * with nothing changed, when a file must not be mapped by user space any more and still is.
   */
  advance(state: FileState): void {
    const bound = [...this.open].filter((file) => file.inode.life.state !== 'created');
    for (const file of bound) file.inode.life.checkAdvance(state);
    for (const file of bound) file.inode.life.advance(state);
    if (isBefore(this.#state, state)) this.#state = state;
  }

  /** Memory at page frame `pfn` has failed. False when it belongs to none of the files. */
  async memoryFailure(pfn: number): Promise<boolean> {
    for (const { inode } of this.open) if (await inode.memoryFailure(pfn)) return true;
    return false;
  }
}
