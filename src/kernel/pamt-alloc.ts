/** PAMT sizes and their memory: one contiguous chunk per TDMR (Linux host rules 1.4 step 2, 1.13). */
import { type AddressRange, alignUp, formatRange, PAGE_1G, PAGE_2M, PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import type { ContigAllocator } from './allocation.ts';
import type { TdxMemoryBlock } from './memlist.ts';
import type { PamtPlacement } from './policy/kernel-policy.ts';

/** Entry sizes the module reports. @public */
export interface PamtEntrySizes {
  readonly pamt4kEntrySize: number;
  readonly pamt2mEntrySize: number;
  readonly pamt1gEntrySize: number;
  /** Bits per 4 KiB page in the page bitmap that takes the place of the 4K PAMT under Dynamic PAMT. */
  readonly pamtPageBitmapEntryBits?: number;
}

/** Bytes of the three parts of a TDMR's PAMT, each whole pages. @public */
export interface PamtSizes {
  /** The 4K PAMT, or under Dynamic PAMT the page bitmap. */
  readonly bytes4k: number;
  readonly bytes2m: number;
  readonly bytes1g: number;
}

/** PAMT of one TDMR: the parts follow each other from `base` in the order 4K, 2M, 1G. @public */
export interface Pamt extends PamtSizes {
  readonly base: number;
  /** Node it lies on: the TDMR's, or another where that has no contiguous memory. */
  readonly node: number;
}

/** Bytes of a whole PAMT. @public */
export function pamtBytes(pamt: PamtSizes): number {
  return pamt.bytes4k + pamt.bytes2m + pamt.bytes1g;
}

/** Addresses of a PAMT. @public */
export function pamtRange(pamt: Pamt): AddressRange {
  return { start: pamt.base, end: pamt.base + pamtBytes(pamt) };
}

/** Sizes of the PAMT of a TDMR of `sizeBytes`. @public */
export function tdmrPamtSizes(sizeBytes: number, entries: PamtEntrySizes, dynamic: boolean): PamtSizes {
  const part = (pageSize: number, entrySize: number): number =>
    alignUp((sizeBytes / pageSize) * entrySize, PAGE_4K);
  const bitmapEntrySize = (entries.pamtPageBitmapEntryBits ?? 1) / 8;
  return {
    bytes4k: part(PAGE_4K, dynamic ? bitmapEntrySize : entries.pamt4kEntrySize),
    bytes2m: part(PAGE_2M, entries.pamt2mEntrySize),
    bytes1g: part(PAGE_1G, entries.pamt1gEntrySize),
  };
}

/**
 * Node of a TDMR's PAMT: that of the first memory block that ends above the TDMR's base; undefined when there is
 * none. @public
 */
export function pamtNode(tdmr: AddressRange, memlist: readonly TdxMemoryBlock[]): number | undefined {
  return memlist.find((block) => block.endPfn > tdmr.start / PAGE_4K)?.node;
}

/**
 * Allocates the PAMT of every TDMR: on its own node, or under `spread` on one node with TDX memory after the other. Throws
 * ENOMEM, with nothing kept, when one finds no contiguous memory.
 * @public
 */
export function allocPamts(
  tdmrs: readonly AddressRange[],
  memlist: readonly TdxMemoryBlock[],
  entries: PamtEntrySizes,
  dynamic: boolean,
  allocator: ContigAllocator,
  warn: (text: string, code: string) => void,
  placement: PamtPlacement = 'local',
): readonly Pamt[] {
  const pamts: Pamt[] = [];
  const nodes = [...new Set(memlist.map(({ node }) => node))].sort((a, b) => a - b);
  for (const [i, tdmr] of tdmrs.entries()) {
    const sizes = tdmrPamtSizes(tdmr.end - tdmr.start, entries, dynamic);
    const local = pamtNode(tdmr, memlist);
    if (local === undefined) {
      warn(`TDMR ${formatRange(tdmr)}: no local node for the PAMT, using node 0`, 'pamt-node-fallback');
    }
    const node = placement === 'spread' ? (nodes[i % nodes.length] ?? 0) : (local ?? 0);
    const pages = pamtBytes(sizes) / PAGE_4K;
    const pfn = allocator.allocContig(pages, { node, purpose: 'pamt' });
    if (pfn === null) {
      freePamts(pamts, allocator);
      throw new KernelError(
        'ENOMEM',
        'pamt-allocation',
        `TDMR ${formatRange(tdmr)}: no ${pages} contiguous pages for its PAMT`,
        { tdmr: { start: tdmr.start, end: tdmr.end }, pages, bytes: pamtBytes(sizes), node },
      );
    }
    pamts.push({ ...sizes, base: pfn * PAGE_4K, node: allocator.nodeOf(pfn) ?? node });
  }
  return pamts;
}

/** Gives the memory of PAMTs back. @public */
export function freePamts(pamts: readonly Pamt[], allocator: ContigAllocator): void {
  for (const pamt of pamts) allocator.freePages(pamt.base / PAGE_4K, pamtBytes(pamt) / PAGE_4K);
}
