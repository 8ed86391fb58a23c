/**
 * Byte offsets of the fields of TDR, TDCS and TDVPS (facts: metadata tables and structure layouts, release 1.5.25).
 * The metadata field tables name the same places; fields they do not list are the module's own.
 */

/** TDCS pages before those of L2 VMs, and at most (module facts 0). @public */
export const TDCS_PAGES_MIN = 6;
export const TDCS_PAGES_MAX = 9;
/** TDVPS pages before those of L2 VMs, for each L2 VM, and at most. @public */
export const TDVPS_PAGES_MIN = 6;
export const TDVPS_PAGES_PER_L2_VM = 3;
export const TDVPS_PAGES_MAX = 15;
/** Virtual machines of a TD: the TD itself and three L2 VMs. @public */
export const MAX_VMS = 4;
/** @public */
export const MAX_VCPUS_PER_TD = 576;

/** Trust domain root. @public */
export const TDR = {
  FATAL: 0, // u8
  NUM_TDCX: 4, // u32
  CHLDCNT: 8, // u64
  LIFECYCLE_STATE: 16, // u32
  TDCX_PA: 24, // u64 x 9, with KeyID
  TD_UUID: 96, // u64 x 4
  HKID: 256, // u16
  PKG_CONFIG_BITMAP: 264, // u64
  HANDOFF_VERSION: 320, // u16
  SEAMDB_INDEX: 328, // u64
  SEAMDB_NONCE: 336, // u64 x 4
} as const;

/** Life cycle of a TD's key (module facts 5). @public */
export const LIFECYCLE = { HKID_ASSIGNED: 0, KEYS_CONFIGURED: 1, BLOCKED: 2, TEARDOWN: 3 } as const;

/** Trust domain control structure. @public */
export const TDCS = {
  NUM_VCPUS: 0, // u32
  NUM_ASSOC_VCPUS: 4, // u32
  OP_STATE: 8, // u32
  OP_STATE_LOCK: 12, // host-priority lock
  NUM_L2_VMS: 16, // u16
  ATTRIBUTES: 128, // u64
  XFAM: 136, // u64
  MAX_VCPUS: 144, // u32
  GPAW: 148, // u8
  EPTP: 152, // u64, with KeyID
  SEPT_TREE_LOCK: 160, // host-priority lock
  TSC_OFFSET: 168, // u64
  TSC_MULTIPLIER: 176, // u64
  TSC_FREQUENCY: 184, // u16
  CPUID_FLAGS: 186, // u8 each, see CPUID_FLAG
  XBUFF_SIZE: 220, // u32
  NOTIFY_ENABLES: 224, // u64
  HP_LOCK_TIMEOUT: 232, // u64
  VM_CTLS: 240, // u64 x 4
  CONFIG_FLAGS: 280, // u64
  TD_CTLS: 288, // u64
  VIRT_MAXPA: 296, // u8
  TOPOLOGY_ENUM_CONFIGURED: 300, // u8
  VE_REDUCTION_VALID: 301, // u8
  PERFMON_EXT_SUBLEAVES: 304, // u32
  CPUID_VALID: 308, // u8 x 80
  XBUFF_OFFSETS: 400, // u32 x 19
  TD_EPOCH: 512, // u64
  REFCOUNT: 520, // u16 x 2
  EPOCH_LOCK: 528, // shared/exclusive lock
  MRTD: 576, // 48 bytes
  MRCONFIGID: 624,
  MROWNER: 672,
  MROWNERCONFIG: 720,
  RTMR: 768, // 48 bytes x 4
  LAST_TEEINFO_HASH: 960, // 48 bytes
  RTMR_LOCK: 1008, // host-priority lock
  LAST_TEEINFO_HASH_VALID: 1010, // u8
  MRTD_CONTEXT_VERSION: 1054, // u16
  MIG_DEC_KEY_SET: 1408, // u8
  MIG_ENC_KEY: 1504, // u64 x 4
  PRE_IMPORT_UUID: 1600, // u64 x 4
  VIRT_MSRS: 1792, // u64 x 16
  CPUID_VALUES: 2048, // 4 x u32 by CPUID policy
  SERVTD_HASH: 3328, // 48 bytes
  SERVTD_NUM: 3376, // u16
  SERVTD_BINDINGS_LOCK: 3378, // host-priority lock
  SERVTD_BINDINGS_TABLE: 3472, // 128 bytes by slot
  CPUID_LAST_BASE_LEAF: 3840, // u32
  CPUID_LAST_EXTENDED_LEAF: 3844, // u32
  CPUID_FIXED0_BITMAP: 3848, // u64
  CPUID4_NATIVE_VALUES: 3856, // 4 x u32, four times
  CPUID4_NATIVE_VALID: 3920, // u8 x 4
  FEATURE_PARAVIRT_CTLS: 3928, // u64
  FILTERED_EVENTS_COUNT: 3936, // u64 x 4 by VM
  EVENT_FILTERS_NUM: 3968, // u16
  X2APIC_IDS: 4352, // u32 x 576
  EVENT_FILTERS: 6656, // u16 x 512
  MSR_BITMAPS: 8192, // one page
} as const;

/** Pages of the TDCS that have a use of their own. @public */
export const TDCS_PAGE = { MSR_BITMAPS: 2, SEPT_ROOT: 3, ZERO: 4, L2_SEPT_ROOT: 6 } as const;

/** A slot of TDCS.SERVTD_BINDINGS_TABLE. @public */
export const SERVTD_BINDING = {
  STATE: 0, // u8
  TYPE: 2, // u16
  ATTRIBUTES: 8, // u64
  UUID: 16, // u64 x 4
  INFO_HASH: 48, // 48 bytes
} as const;

/** Positions in TDCS.CPUID_FLAGS: what of a TD's CPUID decides how its other events are handled. @public */
export const CPUID_FLAG = {
  MONITOR_MWAIT: 0,
  DCA: 1,
  TSC_DEADLINE: 2,
  TSX: 3,
  WAITPKG: 4,
  TME: 5,
  PCONFIG: 6,
  XFD: 7,
  DDPD: 8,
  LA57: 9,
  PERFMON_EXT_LEAF: 11,
  NO_CORE_CAPABILITIES: 18,
  EST: 19,
  NO_MCE: 20,
  NO_MCA: 21,
  NO_MTRR: 22,
  RDT_A: 23,
  RDT_M: 24,
  ACPI: 25,
  TM2: 26,
  XTPR_UPDATE: 27,
} as const;

/** Virtual processor structure. @public */
export const TDVPS = {
  VE_EXIT_REASON: 0, // u32
  VE_VALID: 4, // u32, all ones while an unread #VE is stored
  VE_EXIT_QUALIFICATION: 8, // u64
  VE_GLA: 16, // u64
  VE_GPA: 24, // u64
  VE_EPTP_INDEX: 32, // u16
  VE_INSTRUCTION_LENGTH: 36, // u32
  VE_INSTRUCTION_INFO: 40, // u32
  VE_CATEGORY: 44, // u8
  VE_INTERRUPTIBILITY: 56, // u32
  VCPU_STATE: 256, // u8
  LAST_TD_EXIT: 257, // u8
  VCPU_INDEX: 258, // u32
  NUM_TDVPS_PAGES: 263, // u8
  TDVPS_PAGE_PA: 264, // u64 x 15, with KeyID
  ASSOC_LPID: 456, // u32
  VCPU_EPOCH: 464, // u64
  CPUID_SUPERVISOR_VE: 472, // u8
  CPUID_USER_VE: 473, // u8
  LAST_EXIT_TSC: 480, // u64
  PEND_NMI: 488, // u8
  NMI_UNBLOCKING_DUE_TO_IRET: 489, // u8
  LAST_EPF_GPA_LIST_IDX: 504, // u8
  POSSIBLY_EPF_STEPPING: 505, // u8
  HP_LOCK_BUSY_START: 512, // u64
  HP_LOCK_BUSY: 520, // u8
  LAST_SEAMDB_INDEX: 526, // u64
  CURR_VM: 534, // u16
  VM_LAUNCHED: 538, // u8 x 4
  LP_DEPENDENT_HPA_UPDATED: 542, // u8 x 4
  MODULE_DEPENDENT_FIELDS_UPDATED: 546, // u8 x 4
  L2_CTLS: 552, // u64 x 4
  L2_DEBUG_CTLS: 584, // u64 x 4
  TSC_DEADLINE: 616, // u64 x 4
  SHADOW_TSC_DEADLINE: 648, // u64 x 4
  BASE_L2_CR0_GUEST_HOST_MASK: 680, // u64
  BASE_L2_CR0_READ_SHADOW: 688, // u64
  BASE_L2_CR4_GUEST_HOST_MASK: 696, // u64
  BASE_L2_CR4_READ_SHADOW: 704, // u64
  SHADOW_CR0_GUEST_HOST_MASK: 712, // u64 x 4
  SHADOW_CR0_READ_SHADOW: 744, // u64 x 4
  SHADOW_CR4_GUEST_HOST_MASK: 776, // u64 x 4
  SHADOW_CR4_READ_SHADOW: 808, // u64 x 4
  SHADOW_PID_HPA: 856, // u64 x 4
  SHADOW_PINBASED_EXEC_CTLS: 888, // u32 x 4
  SHADOW_PLE_GAP: 904, // u32 x 4
  SHADOW_PLE_WINDOW: 920, // u32 x 4
  SHADOW_POSTED_INT_NOTIFICATION_VECTOR: 936, // u16
  SHADOW_PROCBASED_EXEC_CTLS2: 944, // u32 x 4
  SHADOW_SHARED_EPTP: 960, // u64 x 4
  L2_ENTER_GUEST_STATE_GPA: 992, // u64 x 4
  L2_ENTER_GUEST_STATE_HPA: 1024, // u64 x 4
  L2_VAPIC_GPA: 1120, // u64 x 4
  L2_VAPIC_HPA: 1152, // u64 x 4
  LAST_EPF_GPA_LIST: 1792, // u64 x 32
  CPUID_CONTROL: 2304, // u8 x 128
  GPRS: 2432, // u64 x 16 by register number
  DR0: 2560, // u64 x 4
  DR6: 2592, // u64
  XCR0: 2600, // u64
  CR2: 2608, // u64
  VCPU_STATE_DETAILS: 2680, // u64
  IA32_SPEC_CTRL: 2688, // u64
  IA32_UMWAIT_CONTROL: 2696,
  IA32_TSX_CTRL: 2704,
  IA32_PMC_GP_CFG: 2712, // u64 x 8
  MSR_OFFCORE_RSP: 2776, // u64 x 2
  IA32_XFD: 2792,
  IA32_XFD_ERR: 2800,
  IA32_PMC_FX_CTR: 2808, // u64 x 7
  IA32_PERF_METRICS: 2864,
  IA32_FIXED_CTR_CTRL: 2872,
  IA32_PERF_GLOBAL_STATUS: 2880,
  IA32_PEBS_ENABLE: 2888,
  MSR_PEBS_DATA_CFG: 2896,
  MSR_PEBS_LD_LAT: 2904,
  MSR_PEBS_FRONTEND: 2912,
  IA32_PMC_GP_CTR: 2920, // u64 x 8
  IA32_DS_AREA: 2984,
  IA32_XSS: 3184,
  IA32_LBR_DEPTH: 3192,
  IA32_UARCH_MISC_CTL: 3200,
  IA32_STAR: 3208,
  IA32_LSTAR: 3216,
  IA32_FMASK: 3224,
  IA32_KERNEL_GS_BASE: 3232,
  IA32_TSC_AUX: 3240,
  IA32_MISC_ENABLE: 3288,
  MSR_SMI_COUNT: 3296,
  VMCS: 4096, // one page
  VAPIC: 8192, // one page
  XBUFF: 12288, // three pages
} as const;

/** Offset of XSTATE_BV and XCOMP_BV in XBUFF: the header after the legacy region of an XSAVE area. @public */
export const XBUFF_XSTATE_BV = TDVPS.XBUFF + 512;
export const XBUFF_XCOMP_BV = TDVPS.XBUFF + 520;

/** @public */
export const VCPU_STATE = { UNINITIALIZED: 0, READY: 2, ACTIVE: 4, DISABLED: 8, IMPORT: 0x10 } as const;
/** How a vCPU last left for the host (module facts 6). @public */
export const LAST_TD_EXIT = { ASYNC_FAULT: 0, ASYNC_TRAP: 1, TDVMCALL: 2 } as const;
/** TDVPS.ASSOC_LPID of a vCPU that no logical processor holds. @public */
export const NO_LP = 0xffff_ffff;
/** Fields that hold no address hold all ones. @public */
export const NULL_PA = 0xffff_ffff_ffff_ffffn;
/** TDCS.MRTD_CONTEXT_VERSION while the measurement runs; zero once it is closed. @public */
export const MRTD_CONTEXT_VERSION = 1;
