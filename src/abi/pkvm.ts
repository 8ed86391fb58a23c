/**
 * The words between a host, the pKVM hypervisor and its guests: hypercalls by HVC, and the two pages that the host
 * shares with the hypervisor (docs/rules/pkvm.md).
 */
import { ERRNO, type ErrnoName } from './errno.ts';
import type { Registers } from './registers.ts';
import { struct, u64, u64s } from './struct.ts';

/** HVC takes its function in x0 and its arguments in x1 and up; register xN is number N of `Registers`. @public */
export const X = { x0: 0, x1: 1, x2: 2, x3: 3, x4: 4 } as const;

/** A fast 64-bit call of the vendor-specific hypervisor service (SMC calling convention). */
const VENDOR_HYP_64 = 0xc600_0000;
const VENDOR_HYP_32 = 0x8600_0000;

/**
 * Hypercalls of the host. The numbers are the model's: host and hypervisor are built together. x0 returns an SMCCC
 * status, x1 the result: 0 or more, or a negative errno. The first two are for the time before the host is
 * deprivileged, all others for the time after it.
 * @public
 */
export const HOST_CALL = {
  /** x1, x2: first page and number of pages of the hypervisor's own memory. */
  pkvmInit: VENDOR_HYP_64 + 0x10,
  /** Puts the calling processor behind the host's stage 2. */
  protFinalize: VENDOR_HYP_64 + 0x11,
  /** x1: pfn. */
  hostShareHyp: VENDOR_HYP_64 + 0x20,
  /** x1: pfn. */
  hostUnshareHyp: VENDOR_HYP_64 + 0x21,
  /** x1: pfn, x2: gfn, x3: pages (1 or 512). For the loaded vCPU's VM, which is protected. */
  hostDonateGuest: VENDOR_HYP_64 + 0x22,
  /** x1: pfn, x2: gfn, x3: pages (1 or 512), x4: permissions. For the loaded vCPU's VM, which is not protected. */
  hostShareGuest: VENDOR_HYP_64 + 0x23,
  /** x1: handle, x2: gfn, x3: pages. */
  hostUnshareGuest: VENDOR_HYP_64 + 0x24,
  /** x1: gfn, x2: permissions. For the loaded vCPU's VM. */
  hostRelaxPermsGuest: VENDOR_HYP_64 + 0x25,
  /** x1: handle, x2: gfn, x3: pages. */
  hostWrprotectGuest: VENDOR_HYP_64 + 0x26,
  /** x1: gfn. Turns a block of the loaded vCPU's VM into pages. */
  hostSplitGuest: VENDOR_HYP_64 + 0x27,
  /** Returns a handle. */
  reserveVm: VENDOR_HYP_64 + 0x30,
  /** x1: handle. */
  unreserveVm: VENDOR_HYP_64 + 0x31,
  /** x1: pfn of the shared HOST_VM page, x2: first page for the VM's state, x3: first page of the stage-2 root. */
  initVm: VENDOR_HYP_64 + 0x32,
  /** x1: handle, x2: pfn of the shared HOST_VCPU page, x3: first page for the vCPU's state. */
  initVcpu: VENDOR_HYP_64 + 0x33,
  /** x1: handle, x2: number of the vCPU. */
  vcpuLoad: VENDOR_HYP_64 + 0x34,
  vcpuPut: VENDOR_HYP_64 + 0x35,
  /** Runs the loaded vCPU until the next exit, which the HOST_VCPU page tells. */
  vcpuRun: VENDOR_HYP_64 + 0x36,
  /** Returns 1 when the loaded vCPU faulted on a page that was taken from the guest by force. */
  vcpuInPoisonFault: VENDOR_HYP_64 + 0x37,
  /** x1: handle. */
  startTeardownVm: VENDOR_HYP_64 + 0x38,
  /** x1: handle. */
  finalizeTeardownVm: VENDOR_HYP_64 + 0x39,
  /** x1: handle, x2: gfn, x3: pages. */
  reclaimDyingGuestPage: VENDOR_HYP_64 + 0x3a,
  /** x1: pfn, x2: pages (1 or 512). */
  forceReclaimGuestPage: VENDOR_HYP_64 + 0x3b,
  /** x1: handle, x2: gfn. As the call before, for a page that the guest shares with the host. */
  revokeSharedGuestPage: VENDOR_HYP_64 + 0x3c,
} as const;

/** Hypercalls of guests; the numbers are Linux's. x0 returns an SMCCC status. @public */
export const GUEST_CALL = {
  version: 0x8000_0000,
  /** Returns a bit per vendor-specific function in x0. */
  features: VENDOR_HYP_32,
  /** Returns the granule of the calls below in bytes; x1 to x3 are zero. */
  hypMeminfo: VENDOR_HYP_64 + 2,
  /** x1: guest physical address, aligned to the granule; x2, x3 are zero. */
  memShare: VENDOR_HYP_64 + 3,
  /** As memShare. */
  memUnshare: VENDOR_HYP_64 + 4,
  /** x1: guest physical address of a page of device registers: only there does the host see what is read or written. */
  mmioGuard: VENDOR_HYP_64 + 7,
} as const;

/** Statuses of the SMC calling convention. @public */
export const SMCCC = { success: 0, notSupported: -1, invalidParameter: -3 } as const;

/** SMCCC version 1.1, as it is returned. @public */
export const SMCCC_VERSION = 0x1_0001;

/** Permissions of a guest's mapping, bits. @public */
export const GUEST_PROT = { read: 1, write: 2, execute: 4, all: 7 } as const;

/** Pages a host donates for the state of a VM, and of a vCPU. @public */
export const HYP_VM_PAGES = 1;
export const HYP_VCPU_PAGES = 2;

/** Width of guest physical addresses unless the VM's type says otherwise (bits). @public */
export const DEFAULT_IPA_BITS = 40;

/** Pages of the root of a guest's stage 2: tables of the first level are put side by side, up to sixteen. @public */
export function stage2RootPages(ipaBits: number): number {
  return ipaBits > 43 ? 1 : Math.max(1, 2 ** (ipaBits - 39));
}

/** Where in the HOST_VCPU page the bytes of an emulated access are, and how many fit. @public */
export const HOST_VCPU_DATA = { offset: 2048, bytes: 2048 } as const;

/**
 * What the host has to do before a guest's hypercall can be done: nothing; a page at the call's address; the block there
 * split; pages for tables.
 * @public
 */
export const CALL_NEEDS = { nothing: 0, page: 1, split: 2, tables: 3 } as const;

/** The page in which the host describes a VM, and takes back the pages of a dead one. @public */
export const HOST_VM = struct({
  handle: u64,
  isProtected: u64,
  ipaBits: u64,
  vcpus: u64,
  /** Physical address of the first page of the list of returned pages; each begins with that of the next. */
  teardownHead: u64,
  teardownPages: u64,
});

/** The page through which host and hypervisor exchange what an exit and an entry need. @public */
export const HOST_VCPU = struct({
  index: u64,
  /** Pages that the host gives for the VM's stage-2 tables, listed as in HOST_VM. */
  memcacheHead: u64,
  memcachePages: u64,
  /** Registers: all of a VM that is not protected, otherwise those that an exit shows or an entry takes. */
  regs: u64s(16),
  rip: u64,
  exitReason: u64,
  exitQualification: u64,
  exitGpa: u64,
  instructionLength: u64,
  /** The guest's hypercall that exited, 0 for other exits. */
  call: u64,
  /** What a hypercall of the guest waits for, CALL_NEEDS; the guest repeats it. */
  callNeeds: u64,
  /** For the next entry: 1 goes on behind the instruction that exited. */
  skipInstruction: u64,
  /** For the next entry: 1 + vector of an exception to inject; 0 for none. */
  injectVector: u64,
  injectErrorCode: u64,
  /** The access of a fault: 0 hidden, 1 read, 2 write. */
  accessKind: u64,
  accessLength: u64,
  /** For the next entry: 1 when the host emulated the access, whose bytes follow at HOST_VCPU_DATA. */
  emulated: u64,
});

const NAMES = new Map<number, ErrnoName>(
  Object.entries(ERRNO).map(([name, number]) => [number, name as ErrnoName]),
);

/** Name of the errno that `result` negates. @public */
export function errnoOf(result: number): ErrnoName {
  return NAMES.get(-result) ?? 'EIO';
}

/** Signed value of register `i`; exact for addresses and negative errnos. @public */
export function signedRegister(regs: Registers, i: number): number {
  return Number(BigInt.asIntN(64, regs.q[i]!));
}

/** Stores a signed integer in register `i`. @public */
export function setSignedRegister(regs: Registers, i: number, value: number): void {
  regs.q[i] = BigInt.asUintN(64, BigInt(value));
}
