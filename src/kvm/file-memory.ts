/** Memory of files that back guests: from the allocator by memory policy, and back to it. */
import { PAGE_4K } from '../abi/address.ts';
import type { Reason } from '../abi/errno.ts';
import type { HostKernel } from '../kernel/host-kernel.ts';
import { type MemoryPolicy, policyAttempts } from '../kernel/process/mempolicy.ts';

/** @internal */
export interface PagesRequest {
  readonly kernel: HostKernel;
  readonly policy: MemoryPolicy | null;
  /** What interleaving goes by. */
  readonly index: number;
  readonly localNode: number;
  readonly order: number;
  /** Pages that the TDX module gets: the policy of TD memory decides about them. */
  readonly forTd: boolean;
  /** For the allocator's fault point. */
  readonly purpose: string;
}

/** First of 2^order zeroed pages, aligned to their size, or why there are none. @internal */
export function allocatePages(request: PagesRequest): number | Reason {
  const { kernel, order } = request;
  const found = request.forTd ? findTdPages(request) : findPages(request);
  if (typeof found === 'number') {
    kernel.machine.lps[0]!.movdir64bZero(found * PAGE_4K, (found + 2 ** order) * PAGE_4K);
  }
  return found;
}

/** A chunk on another node would be worse than single pages on the right one. */
function isStrict(order: number): boolean {
  return order > 0;
}

function findTdPages({ kernel, order, policy, index, localNode, purpose }: PagesRequest): number | Reason {
  return kernel.tdMemory.find(order, { purpose, node: localNode, policy, index, isStrict: isStrict(order) });
}

function findPages(request: PagesRequest): number | Reason {
  const { kernel, order, purpose } = request;
  for (const { node, fallback } of policyAttempts(request)) {
    const options = { node, fallback: fallback && !isStrict(order), purpose, nonTdxOk: true };
    const pfn = kernel.allocator.allocPages(order, options);
    if (pfn !== null) return pfn;
  }
  return { code: 'no-page', text: `no page is free (${purpose})`, data: { order, purpose } };
}

/** A page that somebody counts goes back with its last reference. @internal */
export function freePages({ allocator, pageRefs }: HostKernel, pfn: number, pages: number): void {
  let at = pfn;
  while (at < pfn + pages && pageRefs.count(at) === 0) at++;
  if (at === pfn + pages) {
    allocator.freePages(pfn, pages);
    return;
  }
  for (at = pfn; at < pfn + pages; at++) {
    if (pageRefs.count(at) > 0) pageRefs.put(at);
    else allocator.freePages(at, 1);
  }
}
