/** What a host has lent out to VMs and processes, by every count there is: all of it comes back with the last of them. */
import { PkvmHypervisor } from '../../hypervisor/pkvm-hypervisor.ts';
import type { Host } from '../host.ts';
import { accountOf, type HostAccount } from '../vm/account.ts';

/** @public */
export interface OwnershipAccount extends HostAccount {
  /** Pages that have a reference count. */
  readonly counted: number;
  /** Places of the RMP that are not the hypervisor's. */
  readonly assigned: number;
  /** Pages that are not as pKVM found them. */
  readonly touched: number;
}

/** @public */
export function ownershipAccount({ machine, kernel }: Pick<Host, 'machine' | 'kernel'>): OwnershipAccount {
  kernel.allocator.audit();
  const { hypervisor, snp } = machine;
  return {
    ...accountOf({ machine, kernel }),
    counted: kernel.pageRefs.size,
    assigned: snp?.rmp.usedPages().length ?? 0,
    touched: hypervisor instanceof PkvmHypervisor ? [...hypervisor.ownership.states.touched()].length : 0,
  };
}
