/** KVM_MEMORY_ENCRYPT_OP on SEV VMs: the commands that SEV-SNP uses, and their structures. */
import { bytes, struct, u8, u16, u32, u64, u64s } from '../struct.ts';

/** Command ids. @public */
export const KVM_SEV = {
  INIT: 0,
  ES_INIT: 1,
  LAUNCH_START: 2,
  LAUNCH_UPDATE_DATA: 3,
  LAUNCH_UPDATE_VMSA: 4,
  LAUNCH_SECRET: 5,
  LAUNCH_MEASURE: 6,
  LAUNCH_FINISH: 7,
  SEND_START: 8,
  SEND_UPDATE_DATA: 9,
  SEND_UPDATE_VMSA: 10,
  SEND_FINISH: 11,
  RECEIVE_START: 12,
  RECEIVE_UPDATE_DATA: 13,
  RECEIVE_UPDATE_VMSA: 14,
  RECEIVE_FINISH: 15,
  GUEST_STATUS: 16,
  DBG_DECRYPT: 17,
  DBG_ENCRYPT: 18,
  CERT_EXPORT: 19,
  GET_ATTESTATION_REPORT: 20,
  SEND_CANCEL: 21,
  INIT2: 22,
  SNP_LAUNCH_START: 100,
  SNP_LAUNCH_UPDATE: 101,
  SNP_LAUNCH_FINISH: 102,
} as const;

/** A command's name. @public */
export type KvmSevCommandName = keyof typeof KVM_SEV;

/** Attribute of /dev/kvm: the VMSA features that KVM_SEV_INIT2 takes, 64 bits. @public */
export const KVM_X86_SEV_VMSA_FEATURES = { group: 1, attr: 0n } as const;

/** The argument of KVM_MEMORY_ENCRYPT_OP; `error` is the firmware's, `sev_fd` an open /dev/sev. @public */
export const KVM_SEV_CMD = struct({ id: u32, pad0: u32, data: u64, error: u32, sev_fd: u32 });

/** KVM_SEV_INIT2. @public */
export const KVM_SEV_INIT = struct({
  vmsa_features: u64,
  flags: u32,
  ghcb_version: u16,
  pad1: u16,
  pad2: bytes(32),
});

/** KVM_SEV_SNP_LAUNCH_START. @public */
export const KVM_SEV_SNP_LAUNCH_START = struct({
  policy: u64,
  gosvw: bytes(16),
  flags: u16,
  pad0: bytes(6),
  pad1: u64s(4),
});

/** Page types of KVM_SEV_SNP_LAUNCH_UPDATE; the firmware's. @public */
export const KVM_SEV_SNP_PAGE_TYPE = {
  NORMAL: 1,
  ZERO: 3,
  UNMEASURED: 4,
  SECRETS: 5,
  CPUID: 6,
} as const;

/** KVM_SEV_SNP_LAUNCH_UPDATE, copied back with what is left. @public */
export const KVM_SEV_SNP_LAUNCH_UPDATE = struct({
  gfn_start: u64,
  uaddr: u64,
  len: u64,
  type: u8,
  pad0: u8,
  flags: u16,
  pad1: u32,
  pad2: u64s(4),
});

/** Lengths of what KVM_SEV_SNP_LAUNCH_FINISH points to. @public */
export const KVM_SEV_SNP_ID_BLOCK_SIZE = 96;
/** @public */
export const KVM_SEV_SNP_ID_AUTH_SIZE = 4096;
/** @public */
export const KVM_SEV_SNP_FINISH_DATA_SIZE = 32;

/** KVM_SEV_SNP_LAUNCH_FINISH. @public */
export const KVM_SEV_SNP_LAUNCH_FINISH = struct({
  id_block_uaddr: u64,
  id_auth_uaddr: u64,
  id_block_en: u8,
  auth_key_en: u8,
  vcek_disabled: u8,
  host_data: bytes(KVM_SEV_SNP_FINISH_DATA_SIZE),
  pad0: bytes(3),
  flags: u16,
  pad1: u64s(4),
});
