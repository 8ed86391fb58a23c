/** Every page has one owner, and is free only when nobody reaches it. */
import { hex, PAGE_4K } from '../../abi/address.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { PAGE_STATE } from '../../hypervisor/page-state.ts';
import { PkvmHypervisor } from '../../hypervisor/pkvm-hypervisor.ts';
import type { HostKernel } from '../../kernel/host-kernel.ts';
import { TdxModule } from '../../module/tdx-module.ts';
import { describeMapping, type GuestMapping } from './guest-mappings.ts';
import { privatePages } from './host-look.ts';
import type { OwnershipInvariant } from './ownership-invariant.ts';

/** A private page is one guest's, at one guest frame, and no guest has it as shared memory. @public */
export const privatePageHasOneOwner: OwnershipInvariant = function* ({ vms }) {
  const owners = new Map<number, GuestMapping>();
  for (const { mappings } of vms) {
    for (const mapping of mappings) {
      if (!mapping.isPrivate || mapping.cachedBy !== null) continue;
      for (const pfn of privatePages([mapping])) {
        const other = owners.get(pfn);
        if (other !== undefined)
          yield `${describeMapping(mapping)} is private and so is ${describeMapping(other)}`;
        owners.set(pfn, mapping);
      }
    }
  }
  for (const { mappings } of vms) {
    for (const mapping of mappings) {
      if (mapping.isPrivate) continue;
      for (let i = 0; i < mapping.pages; i++) {
        const owner = owners.get(mapping.pfn + i);
        if (owner !== undefined)
          yield `${describeMapping(mapping)} is shared memory and ${describeMapping(owner)} private`;
      }
    }
  }
};

/** User space has no page in its tables that a guest has for itself. @public */
export const userSpaceMapsNoPrivatePage: OwnershipInvariant = function* ({ vms, userPages }) {
  const owned = new Set(vms.flatMap(({ mappings }) => [...privatePages(mappings)]));
  for (const { vpn, pfn } of userPages) {
    if (owned.has(pfn)) yield `user space maps a guest's private page at ${hex(vpn * PAGE_4K)}`;
  }
};

/** No page is free that a guest reaches by its tables or a TLB, or user space by its own. @public */
export const reachedPagesAreInUse: OwnershipInvariant = function* ({ kernel, vms, userPages }) {
  for (const { mappings } of vms) {
    for (const mapping of mappings) {
      for (let i = 0; i < mapping.pages; i++) {
        if (kernel.allocator.isFree(mapping.pfn + i)) yield `${describeMapping(mapping)} is free`;
      }
    }
  }
  for (const { vpn, pfn } of userPages) {
    if (kernel.allocator.isFree(pfn)) yield `user space maps a free page at ${hex(vpn * PAGE_4K)}`;
  }
};

/** Free memory is the host's: no module, firmware or hypervisor counts it as a guest's. @public */
export const freePagesAreTheHosts: OwnershipInvariant = function* ({ kernel, onceHidden }) {
  for (const { pfn, owner } of guestPages(kernel, onceHidden)) {
    if (kernel.allocator.isFree(pfn)) yield `the page at ${hex(pfn * PAGE_4K)} is free and ${owner}`;
  }
};

/** Pages that the technology's own records give to guests; TDs' among those that guests were seen to have. */
function* guestPages(
  { machine }: HostKernel,
  onceHidden: Iterable<number>,
): Generator<{ readonly pfn: number; readonly owner: string }> {
  const { snp, hypervisor } = machine;
  const { module } = machine.seam;
  for (const pfn of module instanceof TdxModule ? onceHidden : []) {
    const entry = (module as TdxModule).pamt.block(pfn * PAGE_4K)?.entry(pfn * PAGE_4K, 0);
    if (entry?.type === PAGE_TYPE.REG) yield { pfn, owner: 'a page of a TD' };
  }
  for (const pfn of snp?.rmp.usedPages() ?? []) {
    if (snp!.rmp.isAssigned(pfn)) yield { pfn, owner: 'assigned in the RMP' };
  }
  if (!(hypervisor instanceof PkvmHypervisor)) return;
  for (const { pfn, host } of hypervisor.ownership.states.touched()) {
    if (host === PAGE_STATE.NOPAGE) yield { pfn, owner: 'not the host’s to pKVM' };
  }
}
