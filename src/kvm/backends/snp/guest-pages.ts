/** Pages of a guest_memfd as SNP needs them: given to the guest before it maps them, taken back before they go. */
import { offsetIn, PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { PAGES_PER_2M, RMP_2M, RMP_4K, type Rmp } from '../../../machine/snp/rmp.ts';
import { RMP_STATUS } from '../../../machine/snp/rmp-instructions.ts';
import { GuestMemfdFile } from '../../guest-memfd/file.ts';
import type { FileTechnology } from '../../guest-memfd/file-technology.ts';
import { SNP_FILE } from '../../guest-memfd/technologies.ts';
import type { Vm } from '../../vm.ts';
import { assignPage, type PageOwner, sharePages } from './rmp.ts';
import type { SnpGuest } from './snp-guest.ts';

const LARGE_ORDER = 9;

/** @internal */
export function fileTechnology(guest: SnpGuest): FileTechnology {
  const takeBack = async (pfn: number, pages: number): Promise<void> => {
    const { host } = guest;
    if (sharePages(host, host.lp, pfn, pages)) return;
    throw new Error(`pages from ${pfn} on could not be taken back from the guest`);
  };
  return {
    ...SNP_FILE,
    prepare: async (pfn, gfn) => givePage(guest, pfn, gfn),
    makeShared: takeBack,
    reclaim: takeBack,
  };
}

/** Assigns the page, or the 2 MiB page around it, to the guest, which has not validated it. Throws EINVAL. */
function givePage({ host, vm, asid }: SnpGuest, pfn: number, gfn: number): void {
  const { rmp } = host.snp;
  if (rmp.isAssigned(pfn)) return;
  const offset = offsetIn(pfn, PAGES_PER_2M);
  const isLarge =
    isLargeChunk(vm, gfn) && offsetIn(gfn, PAGES_PER_2M) === offset && isUnassigned(rmp, pfn - offset);
  const shift = isLarge ? offset : 0;
  const owner: PageOwner = {
    gpa: (gfn - shift) * PAGE_4K,
    asid,
    immutable: false,
    pageSize: isLarge ? RMP_2M : RMP_4K,
  };
  const status = assignPage(host, host.lp, pfn - shift, owner);
  if (status === RMP_STATUS.SUCCESS) return;
  throw new KernelError('EINVAL', 'snp-rmpupdate', `RMPUPDATE failed for guest frame ${gfn}`, {
    gfn,
    pfn,
    status,
  });
}

function isLargeChunk(vm: Vm, gfn: number): boolean {
  const slot = vm.slots.find(gfn);
  if (!(slot?.backing instanceof GuestMemfdFile)) return false;
  return slot.backing.inode.orderAt(gfn - slot.baseGfn + slot.backingIndex) === LARGE_ORDER;
}

function isUnassigned(rmp: Rmp, pfn: number): boolean {
  for (let i = 0; i < PAGES_PER_2M; i++) if (rmp.isAssigned(pfn + i)) return false;
  return true;
}
