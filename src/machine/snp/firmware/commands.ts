/** Commands of the secure processor's mailbox: numbers, statuses and buffers (SEV-SNP firmware ABI, 56860). */
import { bytes, struct, u8, u16, u32, u64 } from '../../../abi/struct.ts';

/** Numbers of the commands that the model has. @public */
export const SNP_COMMAND = {
  PLATFORM_STATUS: 0x83,
  DF_FLUSH: 0x84,
  INIT_EX: 0x85,
  DECOMMISSION: 0x90,
  ACTIVATE: 0x91,
  GUEST_STATUS: 0x92,
  GCTX_CREATE: 0x93,
  LAUNCH_START: 0xa0,
  LAUNCH_UPDATE: 0xa1,
  LAUNCH_FINISH: 0xa2,
  PAGE_RECLAIM: 0xc7,
} as const;

/** Version of the ABI that the firmware speaks. @public */
export const SNP_API = { major: 1, minor: 55 } as const;

/** Statuses of commands. @public */
export const SEV_STATUS = {
  SUCCESS: 0,
  INVALID_PLATFORM_STATE: 0x1,
  INVALID_GUEST_STATE: 0x2,
  INVALID_CONFIG: 0x3,
  INVALID_LENGTH: 0x4,
  POLICY_FAILURE: 0x7,
  INACTIVE: 0x8,
  INVALID_ADDRESS: 0x9,
  BAD_MEASUREMENT: 0xb,
  ASID_OWNED: 0xc,
  INVALID_ASID: 0xd,
  WBINVD_REQUIRED: 0xe,
  DF_FLUSH_REQUIRED: 0xf,
  INVALID_GUEST: 0x10,
  INVALID_COMMAND: 0x11,
  ACTIVE: 0x12,
  INVALID_PARAM: 0x16,
  INVALID_PAGE_SIZE: 0x19,
  INVALID_PAGE_STATE: 0x1a,
  INVALID_PAGE_OWNER: 0x1c,
  RMP_INIT_REQUIRED: 0x20,
} as const;

/** A status' name, for logs. @public */
export function sevStatusName(status: number): string {
  const known = Object.entries(SEV_STATUS).find(([, value]) => value === status);
  return known?.[0] ?? `0x${status.toString(16)}`;
}

/** Page types of LAUNCH_UPDATE. @public */
export const SNP_PAGE_TYPE = {
  NORMAL: 1,
  VMSA: 2,
  ZERO: 3,
  UNMEASURED: 4,
  SECRETS: 5,
  CPUID: 6,
} as const;

/** GCTX_CREATE, DECOMMISSION, PLATFORM_STATUS. @public */
export const SNP_ADDRESS = struct({ address: u64 });

/** Bit 0 of `flags`: initialise the RMP. @public */
export const SNP_INIT_EX = struct({ flags: u32, rsvd0: u32, list_paddr: u64, rsvd1: bytes(48) });

/** @public */
export const SNP_ACTIVATE = struct({ gctx_paddr: u64, asid: u32 });

/** @public */
export const SNP_GUEST_STATUS = struct({ gctx_paddr: u64, address: u64 });

/** What GUEST_STATUS writes. @public */
export const SNP_GUEST_STATUS_PAGE = struct({ policy: u64, asid: u32, state: u8 });

/** States of a guest as GUEST_STATUS tells them. @public */
export const SNP_GUEST_STATE = { INIT: 0, LAUNCH: 1, RUNNING: 2 } as const;

/** What PLATFORM_STATUS writes. @public */
export const SNP_PLATFORM_STATUS_PAGE = struct({
  api_major: u8,
  api_minor: u8,
  state: u8,
  is_rmp_initialized: u8,
  build_id: u32,
  features: u32,
  guest_count: u32,
  current_tcb_version: u64,
  reported_tcb_version: u64,
});

/** @public */
export const SNP_LAUNCH_START = struct({
  gctx_paddr: u64,
  policy: u64,
  ma_gctx_paddr: u64,
  flags: u32,
  gosvw: bytes(16),
});

/** `flags`: page size in bit 0, page type in bits 3:1, part of a migration image in bit 4. @public */
export const SNP_LAUNCH_UPDATE = struct({
  gctx_paddr: u64,
  flags: u32,
  rsvd0: u32,
  address: u64,
  rsvd1: u8,
  vmpl1_perms: u8,
  vmpl2_perms: u8,
  vmpl3_perms: u8,
  rsvd2: u32,
});

/** `flags`: ID block in bit 0, author key in bit 1, VCEK disabled in bit 2. @public */
export const SNP_LAUNCH_FINISH = struct({
  gctx_paddr: u64,
  id_block_paddr: u64,
  id_auth_paddr: u64,
  flags: u64,
  host_data: bytes(32),
});

/** Bit 0 of the address: a 2 MiB page. @public */
export const SNP_PAGE_RECLAIM = struct({ paddr: u64 });

/** What the ID block says of the guest. @public */
export const SNP_ID_BLOCK = struct({
  launch_digest: bytes(48),
  family_id: bytes(16),
  image_id: bytes(16),
  version: u32,
  guest_svn: u32,
  policy: u64,
});

/** Bits of a guest's policy. @public */
export const SNP_POLICY = {
  apiMinor: 0xffn,
  apiMajor: 0xff00n,
  smt: 1n << 16n,
  mustBeOne: 1n << 17n,
  migrationAgent: 1n << 18n,
  debug: 1n << 19n,
  singleSocket: 1n << 20n,
} as const;

/** Function table in a CPUID page. @public */
export const SNP_CPUID_MAX_COUNT = 64;
/** @public */
export const SNP_CPUID_HEADER = struct({ count: u32, rsvd0: u32, rsvd1: u64 });
/** @public */
export const SNP_CPUID_FUNCTION = struct({
  eax_in: u32,
  ecx_in: u32,
  xcr0_in: u64,
  xss_in: u64,
  eax: u32,
  ebx: u32,
  ecx: u32,
  edx: u32,
  rsvd: u64,
});

/** Head of a secrets page; keys for messages between guest and firmware, one per VMPL. @public */
export const SNP_SECRETS = struct({
  version: u32,
  flags: u32,
  fms: u32,
  rsvd0: u32,
  gosvw: bytes(16),
  vmpck0: bytes(32),
  vmpck1: bytes(32),
  vmpck2: bytes(32),
  vmpck3: bytes(32),
  guest_area: bytes(96),
  vmsa_tweak_bitmap: bytes(64),
  rsvd1: u16,
});
