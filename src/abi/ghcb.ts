/**
 * How an SEV-ES or SNP guest speaks to its hypervisor: the GHCB MSR protocol and the page that guest and hypervisor share
 * (AMD, SEV-ES Guest-Hypervisor Communication Block Standardization, 56421).
 */
import { bytes, struct, u16, u32, u64 } from './struct.ts';

/** Versions of the protocol that the host offers. @public */
export const GHCB_VERSION = { min: 1, max: 2 } as const;

/** Bits 11:0 of the MSR: zero with the address of a GHCB, else a request or its response. @public */
export const GHCB_MSR = {
  SEV_INFO: 0x001,
  SEV_INFO_REQ: 0x002,
  CPUID_REQ: 0x004,
  CPUID_RESP: 0x005,
  AP_RESET_HOLD_REQ: 0x006,
  AP_RESET_HOLD_RESP: 0x007,
  PREF_GPA_REQ: 0x010,
  PREF_GPA_RESP: 0x011,
  REG_GPA_REQ: 0x012,
  REG_GPA_RESP: 0x013,
  PSC_REQ: 0x014,
  PSC_RESP: 0x015,
  HV_FT_REQ: 0x080,
  HV_FT_RESP: 0x081,
  TERM_REQ: 0x100,
} as const;

/** Bits of the MSR that hold the request. @public */
export const GHCB_MSR_INFO_BITS = 12n;

/** Features that HV_FT_RESP tells: SNP. @public */
export const GHCB_HV_FEATURE_SNP = 1n;

/** Operations of a page state change. @public */
export const PSC_OPERATION = { PRIVATE: 1, SHARED: 2, PSMASH: 3, UNSMASH: 4 } as const;

/** Exit codes: those of the processor that a guest asks about, and the protocol's own. @public */
export const GHCB_EXIT = {
  CPUID: 0x72,
  HLT: 0x78,
  IOIO: 0x7b,
  MSR: 0x7c,
  VMMCALL: 0x81,
  NPF: 0x400,
  MMIO_READ: 0x8000_0001,
  MMIO_WRITE: 0x8000_0002,
  PSC: 0x8000_0010,
  GUEST_REQUEST: 0x8000_0011,
  AP_CREATION: 0x8000_0013,
  HV_FEATURES: 0x8000_fffd,
  TERM_REQUEST: 0x8000_fffe,
} as const;

/** The page. Registers lie where they lie in a VMSA; `valid_bitmap` has a bit for each 8 bytes up to it. @public */
export const GHCB = struct({
  rsvd_0: bytes(0x1f8),
  rax: u64,
  rsvd_200: bytes(0x108),
  rcx: u64,
  rdx: u64,
  rbx: u64,
  rsvd_320: bytes(0x70),
  sw_exit_code: u64,
  sw_exit_info_1: u64,
  sw_exit_info_2: u64,
  sw_scratch: u64,
  rsvd_3b0: bytes(0x38),
  xcr0: u64,
  valid_bitmap: bytes(16),
  x87_state_gpa: u64,
  rsvd_408: bytes(0x3f8),
  shared_buffer: bytes(2032),
  rsvd_ff0: bytes(10),
  protocol_version: u16,
  usage: u32,
});

/** Fields of the page that have a bit in `valid_bitmap`. @public */
export type GhcbField =
  | 'rax'
  | 'rbx'
  | 'rcx'
  | 'rdx'
  | 'sw_exit_code'
  | 'sw_exit_info_1'
  | 'sw_exit_info_2'
  | 'sw_scratch';

/** SW_EXITINFO1 of a response: done, an exception is to be raised, the request was malformed. @public */
export const GHCB_RESPONSE = { NO_ACTION: 0n, ISSUE_EXCEPTION: 1n, MALFORMED_INPUT: 2n } as const;

/** SW_EXITINFO2 of a response to malformed input. @public */
export const GHCB_ERROR = {
  NOT_REGISTERED: 1n,
  INVALID_USAGE: 2n,
  INVALID_SCRATCH_AREA: 3n,
  MISSING_INPUT: 4n,
  INVALID_INPUT: 5n,
  INVALID_EVENT: 6n,
} as const;

/** SW_EXITINFO1 of IOIO. @public */
export const IOIO = { in: 1n << 0n, string: 1n << 2n, sizeShift: 4n, portShift: 16n } as const;

/** Head of a page state change request, and one of its entries (one 64-bit word). @public */
export const PSC_HEADER = struct({ cur_entry: u16, end_entry: u16, rsvd: u32 });
/** Entries that the shared buffer has room for. @public */
export const PSC_MAX_ENTRIES = 253;

/** @public */
export interface PscEntry {
  /** 4 KiB pages of the entry that are done. */
  readonly currentPage: number;
  readonly gfn: number;
  /** PSC_OPERATION. */
  readonly operation: number;
  readonly isLarge: boolean;
}

/** @public */
export function decodePscEntry(word: bigint): PscEntry {
  return {
    currentPage: Number(word & 0xfffn),
    gfn: Number((word >> 12n) & 0xff_ffff_ffffn),
    operation: Number((word >> 52n) & 0xfn),
    isLarge: ((word >> 56n) & 1n) === 1n,
  };
}

/** @public */
export function encodePscEntry({ currentPage, gfn, operation, isLarge }: PscEntry): bigint {
  return BigInt(currentPage) | (BigInt(gfn) << 12n) | (BigInt(operation) << 52n) | (BigInt(isLarge) << 56n);
}

/** SW_EXITINFO2 of a page state change that stopped. @public */
export const PSC_ERROR = {
  INVALID_HEADER: (1n << 32n) | 1n,
  INVALID_ENTRY: (1n << 32n) | 2n,
  GENERIC: 0x100n << 32n,
} as const;

/** The bit of a field in `valid_bitmap`, by byte and mask. */
function validBit(field: GhcbField): readonly [byte: number, mask: number] {
  const index = GHCB.offsets[field] / 8;
  return [Math.floor(index / 8), 1 << (index % 8)];
}

/** @public */
export function isGhcbFieldValid(bitmap: Uint8Array, field: GhcbField): boolean {
  const [byte, mask] = validBit(field);
  return (bitmap[byte]! & mask) !== 0;
}

/** Marks fields as valid. @public */
export function ghcbBitmap(fields: readonly GhcbField[]): Uint8Array {
  const bitmap = new Uint8Array(16);
  for (const field of fields) {
    const [byte, mask] = validBit(field);
    bitmap[byte]! |= mask;
  }
  return bitmap;
}
