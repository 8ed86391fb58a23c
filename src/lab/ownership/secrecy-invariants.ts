/** Nobody but the guest reads what the guest keeps in private memory. */
import { hex, PAGE_4K } from '../../abi/address.ts';
import { CpuException } from '../../machine/exceptions.ts';
import { privatePages } from './host-look.ts';
import type { OwnershipInvariant } from './ownership-invariant.ts';

/** Bytes at the beginning of a page, where guests of the lab keep secrets. */
const LOOKED_AT = 256;

/** No page that user space maps holds a secret. @public */
export const userSpaceSeesNoSecret: OwnershipInvariant = function* ({ kernel, userPages, secret }) {
  for (const { vpn, pfn } of userPages) {
    const bytes = kernelLoad(kernel.machine.lps[0]!, pfn);
    if (bytes !== null && holds(bytes, secret)) {
      yield `user space reads a secret of a guest at ${hex(vpn * PAGE_4K)}`;
    }
  }
};

/**
 * A load by the kernel or a device gives no secret, of pages that are a guest's or were: not while they are the guest's,
 * not on their way back, not later. Where only KVM keeps memory apart the kernel reads everything.
 * @public
 */
export const kernelReadsNoSecret: OwnershipInvariant = function* ({ kernel, onceHidden, secret }) {
  for (const pfn of onceHidden) {
    const bytes = kernelLoad(kernel.machine.lps[0]!, pfn);
    if (bytes !== null && holds(bytes, secret)) {
      yield `the kernel reads a secret of a guest at physical ${hex(pfn * PAGE_4K)}`;
    }
  }
};

/** No device has a guest's private page pinned. @public */
export const devicesPinNoPrivatePage: OwnershipInvariant = function* ({ kernel, vms }) {
  for (const { mappings } of vms) {
    for (const pfn of privatePages(mappings)) {
      if (kernel.pageRefs.pins(pfn) > 0) yield `a device pins the private page at ${hex(pfn * PAGE_4K)}`;
    }
  }
};

/** What the kernel reads; null where the machine refuses. */
function kernelLoad(
  lp: { load(address: number, length: number): Uint8Array },
  pfn: number,
): Uint8Array | null {
  try {
    return lp.load(pfn * PAGE_4K, LOOKED_AT);
  } catch (error) {
    if (error instanceof CpuException) return null;
    throw error;
  }
}

function holds(bytes: Uint8Array, secret: Uint8Array): boolean {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).includes(Buffer.from(secret));
}
