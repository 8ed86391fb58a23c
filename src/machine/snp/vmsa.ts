/**
 * The save area of a vCPU with encrypted state (VMSA): where VMRUN loads registers from and a VM exit leaves them, a page
 * of the guest's own (AMD APM volume 2, table B-4).
 */
import { PAGE_4K } from '../../abi/address.ts';
import { REGISTER_NAMES } from '../../abi/registers.ts';
import { bytes, struct, u8, u16, u32, u64 } from '../../abi/struct.ts';

/** A segment register; `attrib` is the descriptor's access byte and flags, packed to 12 bits. @public */
export const VMSA_SEGMENT = struct({ selector: u16, attrib: u16, limit: u32, base: u64 });

/** The fields up to the extended state, which the model leaves zero but for its control words. @public */
export const VMSA = struct({
  es: VMSA_SEGMENT,
  cs: VMSA_SEGMENT,
  ss: VMSA_SEGMENT,
  ds: VMSA_SEGMENT,
  fs: VMSA_SEGMENT,
  gs: VMSA_SEGMENT,
  gdtr: VMSA_SEGMENT,
  ldtr: VMSA_SEGMENT,
  idtr: VMSA_SEGMENT,
  tr: VMSA_SEGMENT,
  vmpl0_ssp: u64,
  vmpl1_ssp: u64,
  vmpl2_ssp: u64,
  vmpl3_ssp: u64,
  u_cet: u64,
  rsvd_c8: u16,
  vmpl: u8,
  cpl: u8,
  rsvd_cc: u32,
  efer: u64,
  rsvd_d8: bytes(104),
  xss: u64,
  cr4: u64,
  cr3: u64,
  cr0: u64,
  dr7: u64,
  dr6: u64,
  rflags: u64,
  rip: u64,
  dr0: u64,
  dr1: u64,
  dr2: u64,
  dr3: u64,
  dr_addr_masks: bytes(32),
  rsvd_1c0: bytes(24),
  rsp: u64,
  s_cet: u64,
  ssp: u64,
  isst_addr: u64,
  rax: u64,
  star: u64,
  lstar: u64,
  cstar: u64,
  sfmask: u64,
  kernel_gs_base: u64,
  sysenter_cs: u64,
  sysenter_esp: u64,
  sysenter_eip: u64,
  cr2: u64,
  rsvd_248: bytes(32),
  g_pat: u64,
  dbgctl: u64,
  branches: bytes(32),
  rsvd_298: bytes(80),
  pkru: u32,
  tsc_aux: u32,
  rsvd_2f0: bytes(24),
  rcx: u64,
  rdx: u64,
  rbx: u64,
  rsvd_320: u64,
  rbp: u64,
  rsi: u64,
  rdi: u64,
  r8: u64,
  r9: u64,
  r10: u64,
  r11: u64,
  r12: u64,
  r13: u64,
  r14: u64,
  r15: u64,
  rsvd_380: bytes(16),
  guest_exit_info_1: u64,
  guest_exit_info_2: u64,
  guest_exit_int_info: u64,
  guest_nrip: u64,
  sev_features: u64,
  vintr_ctrl: u64,
  guest_exit_code: u64,
  virtual_tom: u64,
  tlb_id: u64,
  pcpu_id: u64,
  event_inj: u64,
  xcr0: u64,
  rsvd_3f0: bytes(16),
  x87_dp: u64,
  mxcsr: u32,
  x87_ftw: u16,
  x87_fsw: u16,
  x87_fcw: u16,
  x87_fop: u16,
  x87_ds: u16,
  x87_cs: u16,
  x87_rip: u64,
});

/** Offset of every general register in a VMSA, by register number. @public */
export const VMSA_REGISTER_OFFSETS: readonly number[] = REGISTER_NAMES.map((name) => VMSA.offsets[name]);

/** Bits of `sev_features`. @public */
export const SEV_FEATURES = { snpActive: 1n << 0n, debugSwap: 1n << 5n, secureTsc: 1n << 9n } as const;

/** State of a vCPU after reset as far as it differs between them and with the host; the rest is architectural. @public */
export interface ResetState {
  /** First instruction, in the last 64 KiB below 4 GiB or where firmware says. */
  readonly eip: number;
  readonly sevFeatures: bigint;
  /** Family, model, stepping that user space put into RDX, as reset does on a processor. */
  readonly signature: number;
}

/**
 * A page with the state after reset, as Linux KVM under QEMU hands it to the firmware: real mode, the code segment's base
 * from the upper half of `eip`.
 * @public
 */
export function resetVmsa({ eip, sevFeatures, signature }: ResetState): Uint8Array {
  const page = new Uint8Array(PAGE_4K);
  const data = { attrib: 0x93, limit: 0xffff };
  const offset = eip % 0x1_0000;
  VMSA.patch(page, {
    es: segment(data),
    cs: segment({ selector: 0xf000, attrib: 0x9b, limit: 0xffff, base: BigInt(eip - offset) }),
    ss: segment(data),
    ds: segment(data),
    fs: segment(data),
    gs: segment(data),
    gdtr: segment({ limit: 0xffff }),
    ldtr: segment({ attrib: 0x82, limit: 0xffff }),
    idtr: segment({ limit: 0xffff }),
    tr: segment({ attrib: 0x8b, limit: 0xffff }),
    efer: 0x1000n, // SVME, which VMRUN demands
    cr4: 0x40n, // MCE, which KVM sets
    cr0: 0x10n,
    dr7: 0x400n,
    dr6: 0xffff_0ff0n,
    rflags: 2n,
    rip: BigInt(offset),
    g_pat: 0x0007_0406_0007_0406n,
    rdx: BigInt(signature),
    sev_features: sevFeatures,
    xcr0: 1n,
    mxcsr: 0x1f80,
    x87_fcw: 0x37f,
  });
  return page;
}

function segment(values: Parameters<typeof VMSA_SEGMENT.encode>[0]): ReturnType<typeof VMSA_SEGMENT.decode> {
  return VMSA_SEGMENT.decode(VMSA_SEGMENT.encode(values));
}
