/** What a technology says about a guest_memfd: what may be done with one in each state of its life. */

/** The life of a file, in order. A file may skip states; it never goes back. @public */
export const FILE_STATES = ['created', 'bound', 'populating', 'sealed', 'live', 'dead'] as const;

/**
 * - created: no slot was ever bound to it;
 * - bound: it belongs to a technology's VM, whose guest has nothing yet;
 * - populating: the initial contents are being handed over and measured;
 * - sealed: the measurement is final, the guest has not run;
 * - live: the guest runs;
 * - dead: the VM's keys or its hypervisor state are gone, only clearing away is left.
 * @public
 */
export type FileState = (typeof FILE_STATES)[number];

/** True when `state` comes before `other` in a file's life. @public */
export function isBefore(state: FileState, other: FileState): boolean {
  return FILE_STATES.indexOf(state) < FILE_STATES.indexOf(other);
}

/** Everything that can be done with a file. @public */
export const FILE_ACTIONS = [
  'mmap',
  'host-fault',
  'allocate',
  'punch',
  'bind',
  'unbind',
  'populate',
  'guest-fault',
  'convert-to-private',
  'convert-to-shared',
] as const;

/** @public */
export type FileAction = (typeof FILE_ACTIONS)[number];

/** Permitted actions by state. @public */
export type FilePermits = Readonly<Record<FileState, ReadonlySet<FileAction>>>;

/** Data that `technologies.ts` has for each technology. @public */
export interface FileRules {
  readonly name: 'plain' | 'sw-protected' | 'tdx' | 'snp' | 'pkvm';
  /** The guest has memory that the host must not see (kvm_arch_has_private_mem). */
  readonly hasPrivateMemory: boolean;
  /** GUEST_MEMFD_FLAG_INIT_SHARED is offered although conversion in place is off. */
  readonly allowsInitShared: boolean;
  /** KVM_SET_MEMORY_ATTRIBUTES2 on the file, where the kernel offers conversion in place at all. */
  readonly supportsInPlace: boolean;
  /** No page of the file may be in a user page table when the file is sealed. */
  readonly sealsUnmapped: boolean;
  readonly permits: FilePermits;
}

/** Rules with what the technology does to pages; a backend makes one from the rules and its callbacks. @public */
export interface FileTechnology extends FileRules {
  /**
   * Before the guest gets private pages (snp: RMP assignment; pkvm: donation). 2^order pages from `pfn` at `gfn`; called
   * again for pages that are prepared already. Throws KernelError.
   */
  prepare?(pfn: number, gfn: number, order: number): Promise<void>;
  /** Private pages become shared in place; no guest mapping of them is left. */
  makeShared?(pfn: number, pages: number): Promise<void>;
  /** Before pages go back to the allocator, whatever they were (snp: RMPUPDATE to hypervisor; pkvm: reclaim, wipe). */
  reclaim?(pfn: number, pages: number): Promise<void>;
}
