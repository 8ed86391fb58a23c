/** A range of a process' addresses that is mapped alike. */
import { PAGE_4K } from '../../abi/address.ts';
import { MAP, PROT } from '../../abi/system-call-flags.ts';
import type { AddressSpace } from './address-space.ts';
import type { FileMapping } from './file-mapping.ts';
import type { MemoryPolicy } from './mempolicy.ts';
import type { OpenFile } from './open-file.ts';
import type { Task } from './task.ts';

/**
 * What a fault gives: the page to map, without a reference (the page table takes one), or a signal, or 'retry', after
 * which the access is tried again past a scheduling point.
 * @public
 */
export type PageFault =
  | { readonly pfn: number; readonly readOnly?: boolean }
  | { readonly signal: 'SIGBUS' | 'SIGSEGV'; readonly reason: string }
  | 'retry';

/** What the file behind an area does for it. `index` is a page of the file. @public */
export interface AreaOperations {
  fault(area: MemoryArea, index: number, write: boolean, task: Task): PageFault | Promise<PageFault>;
  /** The file keeps policies by page: mbind over pages [startIndex, endIndex). Absent: the area keeps its own. */
  setPolicy?(area: MemoryArea, startIndex: number, endIndex: number, policy: MemoryPolicy | null): void;
  getPolicy?(area: MemoryArea, index: number): MemoryPolicy | null;
}

/** What an area is made with; see the fields. @public */
export type AreaInit = Pick<MemoryArea, 'start' | 'end' | 'prot' | 'flags' | 'pageOffset' | 'file'>;

/** struct vm_area_struct. Private areas copy a page before they write to it. @public */
export class MemoryArea {
  readonly space: AddressSpace;
  /** Virtual addresses [start, end), multiples of 4 KiB. */
  start: number;
  end: number;
  readonly prot: number;
  /** MAP flags it was made with. */
  readonly flags: number;
  /** Page of the file that `start` maps. */
  pageOffset: number;
  /** The open file, which the area holds a reference to; null for private anonymous memory. */
  readonly file: OpenFile | null;
  /** Who maps pages; the file's mmap sets it. Null: private anonymous memory. */
  ops: AreaOperations | null = null;
  /** All areas that map the file, for unmapping its pages; the file's mmap sets it. */
  mapping: FileMapping | null = null;
  /** mbind's policy; null is the default one. */
  policy: MemoryPolicy | null = null;
  /** MADV_DONTFORK. */
  dontFork = false;

  constructor(space: AddressSpace, init: AreaInit) {
    this.space = space;
    this.start = init.start;
    this.end = init.end;
    this.prot = init.prot;
    this.flags = init.flags;
    this.pageOffset = init.pageOffset;
    this.file = init.file;
  }

  get shared(): boolean {
    return (this.flags & MAP.SHARED) !== 0;
  }

  get writable(): boolean {
    return (this.prot & PROT.WRITE) !== 0;
  }

  /** x86 has no mapping that can be written and not read. */
  get readable(): boolean {
    return this.prot !== PROT.NONE;
  }

  /** Page of the file that virtual page `vpn` maps. */
  indexOf(vpn: number): number {
    return vpn - this.start / PAGE_4K + this.pageOffset;
  }

  /** The area for [start, end) of this one, in the same or another address space. References are the caller's. */
  part(start: number, end: number, space: AddressSpace = this.space): MemoryArea {
    const { prot, flags, file } = this;
    const pageOffset = this.indexOf(start / PAGE_4K);
    const area = new MemoryArea(space, { start, end, prot, flags, pageOffset, file });
    area.ops = this.ops;
    area.mapping = this.mapping;
    area.policy = this.policy;
    area.dontFork = this.dontFork;
    return area;
  }
}
