/** Memory of files that back guests: from the allocator by memory policy, and back to it. */
import { PAGE_4K } from '../abi/address.ts';
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
  /** For the allocator's fault point. */
  readonly purpose: string;
}

/** First of 2^order zeroed pages, aligned to their size; null when there is no memory. @internal */
export function allocatePages(request: PagesRequest): number | null {
  const { kernel, order, purpose } = request;
  for (const attempt of policyAttempts(request)) {
    // A chunk on another node would be worse than single pages on the right one.
    const fallback = attempt.fallback && order === 0;
    const pfn = kernel.allocator.allocPages(order, { node: attempt.node, fallback, purpose });
    if (pfn === null) continue;
    kernel.machine.lps[0]!.movdir64bZero(pfn * PAGE_4K, (pfn + 2 ** order) * PAGE_4K);
    return pfn;
  }
  return null;
}

/** Memory that failed never goes back; a page that somebody counts goes back with its last reference. @internal */
export function freePages({ allocator, pageRefs }: HostKernel, pfn: number, pages: number): void {
  let at = pfn;
  while (at < pfn + pages && pageRefs.count(at) === 0 && !pageRefs.isPoisoned(at)) at++;
  if (at === pfn + pages) {
    allocator.freePages(pfn, pages);
    return;
  }
  for (at = pfn; at < pfn + pages; at++) {
    if (pageRefs.count(at) > 0) pageRefs.put(at);
    else if (!pageRefs.isPoisoned(at)) allocator.freePages(at, 1);
  }
}
