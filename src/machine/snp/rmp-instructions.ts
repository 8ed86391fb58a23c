/**
 * The instructions that change the reverse map table (AMD APM volume 3): RMPUPDATE and PSMASH of the host, PVALIDATE and
 * RMPADJUST of a guest. Return codes are EAX.
 */
import { isAligned, PAGE_2M, PAGE_4K, pfnOf } from '../../abi/address.ts';
import {
  HYPERVISOR_PAGE,
  PAGES_PER_2M,
  RMP_2M,
  RMP_4K,
  type Rmp,
  type RmpEntry,
  type RmpPageSize,
  VMPL,
  VMPL0_ONLY,
  VMPLS,
} from './rmp.ts';
import { accessBits, type GuestMemoryAccess, isOwnedPage, PAGE_FAULT } from './rmp-checks.ts';

/** @public */
export const RMP_STATUS = {
  SUCCESS: 0,
  /** Illegal operands. */
  FAIL_INPUT: 1,
  /** The entry, or the privilege level, does not allow it. */
  FAIL_PERMISSION: 2,
  /** Another processor is at the entry. */
  FAIL_INUSE: 3,
  /** RMPUPDATE: a 4 KiB and a 2 MiB page would overlap. PSMASH: no entry for the address. */
  FAIL_OVERLAP: 4,
  FAIL_BADADDR: 4,
  /** PVALIDATE, RMPADJUST: a 2 MiB page was named, the RMP has 4 KiB pages there. */
  FAIL_SIZEMISMATCH: 6,
} as const;

/** What RMPUPDATE reads at RCX. @public */
export type RmpState = Pick<RmpEntry, 'assigned' | 'pageSize' | 'immutable' | 'gpa' | 'asid'>;

/** RMPUPDATE of the page at system physical `address`. `asids` is the number of ASIDs of the machine, 0 included. @internal */
export function rmpUpdate(rmp: Rmp, asids: number, address: number, state: RmpState): number {
  const { assigned, pageSize, immutable, gpa, asid } = state;
  const size = pageSize === RMP_2M ? PAGE_2M : PAGE_4K;
  const pfn = pfnOf(address);
  const pages = size / PAGE_4K;
  if (!isAligned(address, size) || !isAligned(gpa, size)) return RMP_STATUS.FAIL_INPUT;
  if (!rmp.covers(pfn + pages - 1) || asid >= asids) return RMP_STATUS.FAIL_INPUT;
  if (!assigned && (asid !== 0 || immutable)) return RMP_STATUS.FAIL_INPUT;
  const isLarge = rmp.isInLargePage(pfn);
  if (rmp.covering(pfn).immutable) return RMP_STATUS.FAIL_PERMISSION;
  if (pageSize === RMP_4K && isLarge) return RMP_STATUS.FAIL_OVERLAP;
  if (pageSize === RMP_2M && !isLarge && holdsSmallPages(rmp, pfn)) return RMP_STATUS.FAIL_OVERLAP;
  const permissions = assigned && asid !== 0 ? VMPL0_ONLY : HYPERVISOR_PAGE.permissions;
  const entry = { ...HYPERVISOR_PAGE, assigned, immutable, gpa, asid, permissions };
  rmp.set(pfn, assigned ? { ...entry, pageSize } : HYPERVISOR_PAGE);
  return RMP_STATUS.SUCCESS;
}

function holdsSmallPages(rmp: Rmp, pfn: number): boolean {
  for (let i = 0; i < PAGES_PER_2M; i++) if (rmp.at(pfn + i).assigned) return true;
  return false;
}

/** PSMASH: the 2 MiB page at `address` becomes 512 pages with the same owner, state and permissions. @internal */
export function psmash(rmp: Rmp, address: number): number {
  if (!isAligned(address, PAGE_2M)) return RMP_STATUS.FAIL_INPUT;
  const pfn = pfnOf(address);
  if (!rmp.covers(pfn)) return RMP_STATUS.FAIL_BADADDR;
  const entry = rmp.at(pfn);
  if (!entry.assigned || entry.pageSize !== RMP_2M || entry.immutable) return RMP_STATUS.FAIL_PERMISSION;
  for (let i = 0; i < PAGES_PER_2M; i++) {
    rmp.set(pfn + i, { ...entry, pageSize: RMP_4K, gpa: entry.gpa + i * PAGE_4K });
  }
  return RMP_STATUS.SUCCESS;
}

/** A page that a guest names in PVALIDATE or RMPADJUST, with what the nested page tables gave for it. @public */
export interface GuestPageOperand {
  readonly asid: number;
  /** VMPL that executes the instruction. */
  readonly vmpl: number;
  readonly gpa: number;
  readonly pageSize: RmpPageSize;
  readonly pfn: number;
  readonly isLargeMapping: boolean;
}

/** EAX and the carry flag, or the nested page fault that the instruction comes to. @public */
export type GuestRmpResult =
  | { readonly status: number; readonly unchanged: boolean }
  | { readonly npf: bigint }
  | 'not-validated';

/** PVALIDATE; only VMPL 0 may. `unchanged` is the carry flag. @internal */
export function pvalidate(rmp: Rmp, page: GuestPageOperand, validate: boolean): GuestRmpResult {
  if (page.vmpl !== 0) return failed(RMP_STATUS.FAIL_PERMISSION);
  const refusal = refuse(rmp, page);
  if (refusal !== null) return refusal;
  const pfn = authority(page);
  const entry = rmp.at(pfn);
  if (entry.validated === validate) return { status: RMP_STATUS.SUCCESS, unchanged: true };
  rmp.set(pfn, { ...entry, validated: validate });
  return { status: RMP_STATUS.SUCCESS, unchanged: false };
}

/** What RMPADJUST sets. @public */
export interface VmplAdjustment {
  readonly targetVmpl: number;
  readonly permissions: number;
  readonly vmsa: boolean;
}

/** RMPADJUST: permissions of a less privileged VMPL, and whether the page is a VMSA. @internal */
export function rmpAdjust(rmp: Rmp, page: GuestPageOperand, wanted: VmplAdjustment): GuestRmpResult {
  const { targetVmpl, permissions, vmsa } = wanted;
  if (targetVmpl >= VMPLS || permissions > VMPL.all) return failed(RMP_STATUS.FAIL_INPUT);
  if (targetVmpl <= page.vmpl) return failed(RMP_STATUS.FAIL_PERMISSION);
  const refusal = refuse(rmp, page);
  if (refusal !== null) return refusal;
  if (vmsa && page.pageSize === RMP_2M) return failed(RMP_STATUS.FAIL_SIZEMISMATCH);
  const pfn = authority(page);
  const entry = rmp.at(pfn);
  if (!entry.validated) return 'not-validated';
  const granted = entry.permissions[page.vmpl]!;
  const missing = [...bits(permissions)].some((bit) => (granted & bit) === 0);
  if (missing || (vmsa !== entry.vmsa && page.vmpl !== 0)) return failed(RMP_STATUS.FAIL_PERMISSION);
  rmp.set(pfn, { ...entry, vmsa, permissions: entry.permissions.with(targetVmpl, permissions) });
  return { status: RMP_STATUS.SUCCESS, unchanged: false };
}

/** What both instructions check of the page: null when it is the guest's, of the size that was named. */
function refuse(rmp: Rmp, page: GuestPageOperand): GuestRmpResult | null {
  const size = page.pageSize === RMP_2M ? PAGE_2M : PAGE_4K;
  if (!isAligned(page.gpa, size)) return failed(RMP_STATUS.FAIL_INPUT);
  const access: GuestMemoryAccess = { ...page, isPrivate: true, kind: 'read' };
  const entry = rmp.covering(page.pfn);
  const npf = accessBits(access) | PAGE_FAULT.rmp;
  if (!isOwnedPage(rmp, access) || entry.immutable) return { npf };
  // The host has to take the 2 MiB entry apart before part of it can be named.
  if (entry.pageSize === RMP_2M && page.pageSize === RMP_4K) return { npf: npf | PAGE_FAULT.sizeMismatch };
  const isSmall = entry.pageSize === RMP_4K || !page.isLargeMapping;
  return page.pageSize === RMP_2M && isSmall ? failed(RMP_STATUS.FAIL_SIZEMISMATCH) : null;
}

function authority({ pfn, pageSize }: GuestPageOperand): number {
  return pageSize === RMP_2M ? pfn - (pfn % PAGES_PER_2M) : pfn;
}

function failed(status: number): GuestRmpResult {
  return { status, unchanged: false };
}

function* bits(mask: number): Generator<number> {
  for (let bit = 1; bit <= mask; bit *= 2) if ((mask & bit) !== 0) yield bit;
}
