/** KVM_CAP_* numbers for KVM_CHECK_EXTENSION and KVM_ENABLE_CAP, and the bits that some of them report. */

/** Capability numbers (include/uapi/linux/kvm.h). @public */
export const KVM_CAP = {
  IRQCHIP: 0,
  HLT: 1,
  USER_MEMORY: 3,
  EXT_CPUID: 7,
  NR_VCPUS: 9,
  NR_MEMSLOTS: 10,
  MP_STATE: 14,
  SYNC_MMU: 16,
  DESTROY_MEMORY_REGION_WORKS: 21,
  IRQ_ROUTING: 25,
  JOIN_MEMORY_REGIONS_WORKS: 30,
  INTERNAL_ERROR_DATA: 40,
  VCPU_EVENTS: 41,
  ENABLE_CAP: 54,
  TSC_CONTROL: 60,
  GET_TSC_KHZ: 61,
  MAX_VCPUS: 66,
  READONLY_MEM: 81,
  ENABLE_CAP_VM: 98,
  CHECK_EXTENSION_VM: 105,
  DISABLE_QUIRKS: 116,
  MULTI_ADDRESS_SPACE: 118,
  SPLIT_IRQCHIP: 121,
  MAX_VCPU_ID: 128,
  X2APIC_API: 129,
  IMMEDIATE_EXIT: 136,
  X86_DISABLE_EXITS: 143,
  EXCEPTION_PAYLOAD: 164,
  ARM_VM_IPA_SIZE: 165,
  X86_MSR_FILTER: 189,
  VM_COPY_ENC_CONTEXT_FROM: 197,
  EXIT_HYPERCALL: 201,
  VM_MOVE_ENC_CONTEXT_FROM: 206,
  VM_GPA_BITS: 207,
  SYS_ATTRIBUTES: 209,
  DISABLE_QUIRKS2: 213,
  VM_TSC_CONTROL: 214,
  SYSTEM_EVENT_DATA: 215,
  X86_TRIPLE_FAULT_EVENT: 218,
  USER_MEMORY2: 231,
  MEMORY_FAULT_INFO: 232,
  MEMORY_ATTRIBUTES: 233,
  GUEST_MEMFD: 234,
  VM_TYPES: 235,
  PRE_FAULT_MEMORY: 236,
  X86_APIC_BUS_CYCLES_NS: 237,
  X86_GUEST_MODE: 238,
  GUEST_MEMFD_FLAGS: 244,
  /** Attributes that KVM_SET_MEMORY_ATTRIBUTES2 on a file takes; of the newest series, not of 7.2. */
  GUEST_MEMFD_MEMORY_ATTRIBUTES: 250,
} as const;

/** A capability's name. @public */
export type KvmCapName = keyof typeof KVM_CAP;

/**
 * Quirks: behaviour that KVM keeps for old user space until it is turned off by KVM_CAP_DISABLE_QUIRKS2. SLOT_ZAP_ALL:
 * a slot that is deleted or moved takes the mappings of all slots with it. @public
 */
export const KVM_X86_QUIRK = { SLOT_ZAP_ALL: 1 << 7 } as const;

/** What KVM_GET_API_VERSION returns, for good. @public */
export const KVM_API_VERSION = 12;
