/**
 * What the processor checks of the reverse map table on every access to memory (AMD APM volume 2, 15.36.10), after the
 * page tables allowed it: stores of the host, and all accesses of SNP guests.
 */
import { hex, PAGE_4K, pfnOf } from '../../abi/address.ts';
import { CpuException, VECTOR_PF } from '../exceptions.ts';
import { RMP_2M, type Rmp, VMPL } from './rmp.ts';

/** Bits of a page fault's error code, those of nested page faults (#NPF) included. @public */
export const PAGE_FAULT = {
  present: 1n << 0n,
  write: 1n << 1n,
  user: 1n << 2n,
  execute: 1n << 4n,
  /** The table of owners forbids it. */
  rmp: 1n << 31n,
  /** The access was to the final address, not to a page table. */
  final: 1n << 32n,
  /** The guest's C-bit was set: a private access. */
  encrypted: 1n << 34n,
  /** The nested page is smaller than the page in the RMP. */
  sizeMismatch: 1n << 35n,
  /** A VMPL permission was missing. */
  vmpl: 1n << 36n,
} as const;

/** Error code of the #VC that a guest gets for a page it has not validated. @public */
export const VC_NOT_VALIDATED = 0x404;

/** #PF of the host, error code with the RMP bit: a store to a page that is not the hypervisor's. @public */
export class RmpFault extends CpuException {
  /** Physical address of the first page that refused. */
  readonly address: number;
  readonly errorCode: bigint;
  constructor(address: number) {
    super(VECTOR_PF, `RMP violation: the page at ${hex(address)} is not the hypervisor's`);
    this.name = 'RmpFault';
    this.address = address;
    this.errorCode = PAGE_FAULT.rmp | PAGE_FAULT.write | PAGE_FAULT.present;
  }
}

/** Loads of the host are never refused, they give ciphertext; throws RmpFault for a store to a page with an owner. @internal */
export function checkHostStore(rmp: Rmp, address: number, lengthBytes: number): void {
  const last = pfnOf(address + lengthBytes - 1);
  for (let pfn = pfnOf(address); pfn <= last; pfn++) {
    if (rmp.isAssigned(pfn)) throw new RmpFault(pfn * PAGE_4K);
  }
}

/** One access of an SNP guest at VMPL 0 to 3, with what the nested page tables gave. @public */
export interface GuestMemoryAccess {
  readonly asid: number;
  readonly vmpl: number;
  /** Guest physical address without the C-bit. */
  readonly gpa: number;
  /** The C-bit. */
  readonly isPrivate: boolean;
  readonly kind: 'read' | 'write' | 'execute';
  /** Host page the nested tables lead to, and whether by a 2 MiB entry. */
  readonly pfn: number;
  readonly isLargeMapping: boolean;
}

/** What comes of it: nothing, a nested page fault with these bits, or a #VC in the guest. @public */
export type GuestAccessVerdict = 'allowed' | 'not-validated' | { readonly npf: bigint };

/** @public */
export function checkGuestAccess(rmp: Rmp, access: GuestMemoryAccess): GuestAccessVerdict {
  const { pfn, kind, vmpl } = access;
  const fault = (bits = 0n): GuestAccessVerdict => ({ npf: accessBits(access) | PAGE_FAULT.rmp | bits });
  // Shared accesses are those of the host: loads pass, stores need a page of the hypervisor.
  if (!access.isPrivate) return kind === 'write' && rmp.isAssigned(pfn) ? fault() : 'allowed';
  const entry = rmp.covering(pfn);
  if (!isOwnedPage(rmp, access) || entry.immutable) return fault();
  if (entry.pageSize === RMP_2M && !access.isLargeMapping) return fault(PAGE_FAULT.sizeMismatch);
  if (entry.vmsa && kind === 'write') return fault();
  if (!entry.validated) return 'not-validated';
  const needed = { read: VMPL.read, write: VMPL.write, execute: VMPL.executeSupervisor }[kind];
  return (entry.permissions[vmpl]! & needed) === 0 ? fault(PAGE_FAULT.vmpl) : 'allowed';
}

/** The page is assigned to this guest, at this address. @internal */
export function isOwnedPage(rmp: Rmp, { asid, gpa, pfn }: GuestMemoryAccess): boolean {
  const entry = rmp.covering(pfn);
  return entry.assigned && entry.asid === asid && rmp.gpaOf(pfn) === gpa - (gpa % PAGE_4K);
}

/** Bits of a nested page fault that say what the access was. @public */
export function accessBits({ kind, isPrivate }: Pick<GuestMemoryAccess, 'kind' | 'isPrivate'>): bigint {
  return (
    PAGE_FAULT.final |
    (kind === 'write' ? PAGE_FAULT.write : 0n) |
    (kind === 'execute' ? PAGE_FAULT.execute : 0n) |
    (isPrivate ? PAGE_FAULT.encrypted : 0n)
  );
}
