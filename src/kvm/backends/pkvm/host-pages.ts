/** Pages of the kernel for the hypervisor: some it gives away for as long as a VM lives, some it lends. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { HOST_CALL } from '../../../abi/pkvm.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';
import { hypCall } from './hyp-call.ts';

/** First of `pages` contiguous zeroed pages. Throws ENOMEM. @internal */
export function allocatePages({ allocator, machine }: HostKernel, pages: number, purpose: string): number {
  const pfn = allocator.allocPages(Math.ceil(Math.log2(pages)), { purpose });
  if (pfn === null) throw new KernelError('ENOMEM', 'no-memory', `no memory is left for ${purpose}`);
  const unused = 2 ** Math.ceil(Math.log2(pages)) - pages;
  if (unused > 0) allocator.freePages(pfn + pages, unused);
  machine.lps[0]!.movdir64bZero(pfn * PAGE_4K, (pfn + pages) * PAGE_4K);
  return pfn;
}

/** Frees pages that the hypervisor does not have. @internal */
export function freePages({ allocator }: HostKernel, pfn: number, pages: number): void {
  for (let i = 0; i < pages; i++) allocator.freePages(pfn + i, 1);
}

/** A page lent to the hypervisor, zeroed. Throws ENOMEM. @internal */
export function lendPage(kernel: HostKernel, lp: LogicalProcessor, purpose: string): number {
  const pfn = allocatePages(kernel, 1, purpose);
  const result = hypCall(lp, HOST_CALL.hostShareHyp, pfn);
  if (result !== 0) throw new Error(`the hypervisor did not take page ${pfn}: ${result}`);
  return pfn;
}

/** Takes a lent page back and frees it. @internal */
export function takeBackPage(kernel: HostKernel, lp: LogicalProcessor, pfn: number): void {
  const result = hypCall(lp, HOST_CALL.hostUnshareHyp, pfn);
  if (result !== 0) throw new Error(`the hypervisor did not give page ${pfn} back: ${result}`);
  kernel.allocator.freePages(pfn, 1);
}

/** Little-endian 64-bit load by the kernel. @internal */
export function load64(lp: LogicalProcessor, address: number): number {
  const bytes = lp.load(address, 8);
  return Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
}

/** Little-endian 64-bit store by the kernel. @internal */
export function store64(lp: LogicalProcessor, address: number, value: number): void {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  lp.store(address, bytes);
}

/** Frees the pages of a list that the hypervisor returned: each begins with the address of the next. @internal */
export function freeList({ allocator }: HostKernel, lp: LogicalProcessor, head: number): void {
  for (let address = head; address !== 0; ) {
    const next = load64(lp, address);
    allocator.freePages(address / PAGE_4K, 1);
    address = next;
  }
}
