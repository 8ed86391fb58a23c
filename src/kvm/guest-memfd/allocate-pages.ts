/** Memory for files, by memory policy. */
import { PAGE_4K } from '../../abi/address.ts';
import type { HostKernel } from '../../kernel/host-kernel.ts';
import { type MemoryPolicy, policyAttempts } from '../../kernel/process/mempolicy.ts';

/** @internal */
export interface PagesRequest {
  readonly kernel: HostKernel;
  readonly policy: MemoryPolicy | null;
  /** What interleaving goes by. */
  readonly index: number;
  readonly localNode: number;
  readonly order: number;
}

/** First of 2^order zeroed pages, aligned to their size; null when there is no memory. @internal */
export function allocatePages(request: PagesRequest): number | null {
  const { kernel, order } = request;
  for (const attempt of policyAttempts(request)) {
    // A chunk on another node would be worse than single pages on the right one.
    const fallback = attempt.fallback && order === 0;
    const pfn = kernel.allocator.allocPages(order, { node: attempt.node, fallback, purpose: 'guest_memfd' });
    if (pfn === null) continue;
    kernel.machine.lps[0]!.movdir64bZero(pfn * PAGE_4K, (pfn + 2 ** order) * PAGE_4K);
    return pfn;
  }
  return null;
}
