/**
 * The VMCS of a TD's vCPU or of one of its L2 VMs, in a page of the TDVPS. A CPU keeps a VMCS in a form of its own;
 * here every field has a slot of eight bytes. Fields of the host state are the module's business and are not kept.
 */
import { PAGE_4K } from '../../abi/address.ts';
import type { ControlStructure } from './control-structure.ts';
import { TDVPS, TDVPS_PAGES_MIN, TDVPS_PAGES_PER_L2_VM } from './layout.ts';

/** Encodings of the fields that the module itself uses (Intel SDM volume 3, appendix B; TDX: 0x203C, 0x4026). @public */
export const VMCS = {
  VPID: 0x0000,
  POSTED_INTERRUPT_NOTIFICATION_VECTOR: 0x0002,
  GUEST_INTERRUPT_STATUS: 0x0810,
  IO_BITMAP_A: 0x2000,
  IO_BITMAP_B: 0x2002,
  MSR_BITMAP: 0x2004,
  EXIT_MSR_STORE: 0x2006,
  EXIT_MSR_LOAD: 0x2008,
  ENTRY_MSR_LOAD: 0x200a,
  PML_ADDRESS: 0x200e,
  TSC_OFFSET: 0x2010,
  VIRTUAL_APIC_PAGE: 0x2012,
  APIC_ACCESS_PAGE: 0x2014,
  POSTED_INTERRUPT_DESCRIPTOR: 0x2016,
  EPTP: 0x201a,
  EPTP_LIST: 0x2024,
  VMREAD_BITMAP: 0x2026,
  VMWRITE_BITMAP: 0x2028,
  VE_INFO_ADDRESS: 0x202a,
  ENCLS_EXITING: 0x202e,
  TSC_MULTIPLIER: 0x2032,
  PROCBASED_CTLS3: 0x2034,
  ENCLV_EXITING: 0x2036,
  PASID_LOW: 0x2038,
  PASID_HIGH: 0x203a,
  SHARED_EPTP: 0x203c,
  PCONFIG_EXITING: 0x203e,
  SPEC_CTRL_MASK: 0x204a,
  SPEC_CTRL_SHADOW: 0x204c,
  OSV_CVP: 0x200c,
  GUEST_PHYSICAL_ADDRESS: 0x2400,
  VMCS_LINK_POINTER: 0x2800,
  GUEST_DEBUGCTL: 0x2802,
  GUEST_PAT: 0x2804,
  GUEST_EFER: 0x2806,
  GUEST_PERF_GLOBAL_CTRL: 0x2808,
  GUEST_PDPTE0: 0x280a,
  GUEST_RTIT_CTL: 0x2814,
  GUEST_LBR_CTL: 0x2816,
  PINBASED_CTLS: 0x4000,
  PROCBASED_CTLS: 0x4002,
  EXCEPTION_BITMAP: 0x4004,
  PAGE_FAULT_MASK: 0x4006,
  PAGE_FAULT_MATCH: 0x4008,
  EXIT_CTLS: 0x400c,
  ENTRY_CTLS: 0x4012,
  ENTRY_INTERRUPTION_INFO: 0x4016,
  ENTRY_ERROR_CODE: 0x4018,
  ENTRY_INSTRUCTION_LENGTH: 0x401a,
  PROCBASED_CTLS2: 0x401e,
  PLE_GAP: 0x4020,
  PLE_WINDOW: 0x4022,
  TD_HKID: 0x4026,
  EXIT_REASON: 0x4402,
  EXIT_INTERRUPTION_INFO: 0x4404,
  EXIT_ERROR_CODE: 0x4406,
  IDT_VECTORING_INFO: 0x4408,
  IDT_VECTORING_ERROR_CODE: 0x440a,
  EXIT_INSTRUCTION_LENGTH: 0x440c,
  EXIT_INSTRUCTION_INFO: 0x440e,
  GUEST_ES_LIMIT: 0x4800,
  GUEST_CS_LIMIT: 0x4802,
  GUEST_SS_LIMIT: 0x4804,
  GUEST_DS_LIMIT: 0x4806,
  GUEST_FS_LIMIT: 0x4808,
  GUEST_GS_LIMIT: 0x480a,
  GUEST_LDTR_LIMIT: 0x480c,
  GUEST_TR_LIMIT: 0x480e,
  GUEST_GDTR_LIMIT: 0x4810,
  GUEST_ES_AR: 0x4814,
  GUEST_CS_AR: 0x4816,
  GUEST_SS_AR: 0x4818,
  GUEST_DS_AR: 0x481a,
  GUEST_FS_AR: 0x481c,
  GUEST_GS_AR: 0x481e,
  GUEST_LDTR_AR: 0x4820,
  GUEST_TR_AR: 0x4822,
  GUEST_INTERRUPTIBILITY: 0x4824,
  GUEST_ACTIVITY: 0x4826,
  CR0_MASK: 0x6000,
  CR4_MASK: 0x6002,
  CR0_SHADOW: 0x6004,
  CR4_SHADOW: 0x6006,
  EXIT_QUALIFICATION: 0x6400,
  EXIT_LINEAR_ADDRESS: 0x640a,
  GUEST_CR0: 0x6800,
  GUEST_CR3: 0x6802,
  GUEST_CR4: 0x6804,
  GUEST_DR7: 0x681a,
  GUEST_RSP: 0x681c,
  GUEST_RIP: 0x681e,
  GUEST_RFLAGS: 0x6820,
  GUEST_PENDING_DEBUG: 0x6822,
} as const;

/** Slots of each group of encodings: bits 11:10 are the type, bits 14:13 the width. */
const GROUP_SIZES: readonly (readonly [group: number, slots: number])[] = [
  [0x0000, 8], // 16-bit control
  [0x0800, 16], // 16-bit guest state
  [0x2000, 48], // 64-bit control
  [0x2400, 8], // 64-bit exit information
  [0x2800, 24], // 64-bit guest state
  [0x4000, 24], // 32-bit control
  [0x4400, 8], // 32-bit exit information
  [0x4800, 24], // 32-bit guest state
  [0x6000, 16], // natural-width control
  [0x6400, 8], // natural-width exit information
  [0x6800, 32], // natural-width guest state
];
/** Encodings are below this. */
const ENCODINGS = 0x7000;
/** Revision identifier and abort indicator, as the CPU has them. */
const HEADER_BYTES = 8;

/** Offset of each field in the page by encoding, also that of its upper half; 0 for what is no field. */
const OFFSETS: Uint16Array = (() => {
  const offsets = new Uint16Array(ENCODINGS);
  let next = HEADER_BYTES;
  for (const [group, slots] of GROUP_SIZES) {
    for (let slot = 0; slot < slots; slot++) {
      offsets[group + 2 * slot] = next;
      offsets[group + 2 * slot + 1] = next;
      next += 8;
    }
  }
  return offsets;
})();

/** Page of the TDVPS that holds the VMCS of virtual machine `vm`: 0 the TD itself, from 1 its L2 VMs. @public */
export function vmcsPage(vm: number): number {
  return vm === 0 ? TDVPS.VMCS / PAGE_4K : TDVPS_PAGES_MIN + (vm - 1) * TDVPS_PAGES_PER_L2_VM;
}

/** @public */
export class Vmcs {
  readonly #tdvps: ControlStructure;
  readonly #base: number;

  constructor(tdvps: ControlStructure, vm = 0) {
    this.#tdvps = tdvps;
    this.#base = vmcsPage(vm) * PAGE_4K;
  }

  /** VMREAD. A field that was never written reads 0. */
  read(encoding: number): bigint {
    return this.#tdvps.u64(this.#at(encoding));
  }

  /** VMREAD of a field of 32 bits or less. */
  read32(encoding: number): number {
    return this.#tdvps.u32(this.#at(encoding));
  }

  /** VMWRITE. */
  write(encoding: number, value: bigint): void {
    this.#tdvps.setU64(this.#at(encoding), value);
  }

  /** VMWRITE of a number below 2^53. */
  writeNumber(encoding: number, value: number): void {
    this.#tdvps.setN64(this.#at(encoding), value);
  }

  #at(encoding: number): number {
    const offset = OFFSETS[encoding];
    if (offset === undefined || offset === 0) {
      throw new Error(`no VMCS field has encoding 0x${encoding.toString(16)}`);
    }
    return this.#base + offset;
  }
}
