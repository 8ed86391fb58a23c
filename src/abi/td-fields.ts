/** Metadata fields of a TD, in the order in which they iterate (facts: TDR and TDCS tables, release 1.5.25). */
import { ALL, field, type MetadataField, R, RW } from './metadata-field.ts';

/** Class code of the CPUID values, whose field codes are made of leaf and subleaf. @public */
export const CPUID_CLASS = 20;
/** Class codes of the secure EPT roots of L2 VMs, which a TD has as many of as it has L2 VMs. @public */
export const L2_SEPT_ROOT_CLASSES: readonly number[] = [37, 41, 45];
/** Class codes below this are of the TDR, the others of the TDCS. @public */
export const FIRST_TDCS_CLASS = 16;

/** @public */
export const TD_FIELDS: readonly MetadataField[] = [
  // class 0: TDR TD MANAGEMENT
  field(0x8010000000000001n, 'FATAL', 0, { host: R, debug: R }),
  field(0x8010000200000002n, 'NUM_TDCX', 4, { host: R, debug: R }),
  field(0x8010000300000004n, 'CHLDCNT', 8, { host: R, debug: R }),
  field(0x8010000200000005n, 'LIFECYCLE_STATE', 16, { host: R, debug: R }),
  field(0x8010000300000010n, 'TDCX_PA', 24, { fields: 9, host: R, debug: R }),
  field(0x8010000300000020n, 'TD_UUID', 96, { elements: 4, host: R, debug: R, guest: R, service: R }),
  // class 1: TDR KEY MANAGEMENT
  field(0x8110000100000001n, 'HKID', 256, { host: R, debug: R }),
  field(0x8110000300000002n, 'PKG_CONFIG_BITMAP', 264, { host: R, debug: R }),
  // class 2: TDR TD PRESERVING
  field(0x8210000100000000n, 'HANDOFF_VERSION', 320, { host: R, debug: R }),
  field(0x8210000300000001n, 'SEAMDB_INDEX', 328, { host: R, debug: R }),
  // class 16: TDCS TD MANAGEMENT
  field(0x9010000200000001n, 'NUM_VCPUS', 0, { host: R, debug: R, guest: R }),
  field(0x9010000200000002n, 'NUM_ASSOC_VCPUS', 4, { host: R, debug: R }),
  field(0x9010000200000004n, 'OP_STATE', 8, { host: R, debug: R }),
  field(0x9010000100000005n, 'NUM_L2_VMS', 16, { host: R, debug: R, guest: R, service: R }),
  // class 17: TDCS EXECUTION CONTROLS
  field(0x1110000300000000n, 'ATTRIBUTES', 128, { host: R, debug: R, guest: R, service: R }),
  field(0x1110000300000001n, 'XFAM', 136, { host: R, debug: R, guest: R, service: R }),
  field(0x1110000200000002n, 'MAX_VCPUS', 144, { host: R, debug: R, guest: R }),
  field(0x1110000000000003n, 'GPAW', 148, { host: R, debug: R, guest: R, service: R }),
  field(0x1110000300000004n, 'EPTP', 152, { host: R, debug: R, service: [0xfff0000000000fffn, 0n] }),
  field(0x111000030000000an, 'TSC_OFFSET', 168, { host: R, debug: R }),
  field(0x111000030000000bn, 'TSC_MULTIPLIER', 176, { host: R, debug: R }),
  field(0x111000010000000cn, 'TSC_FREQUENCY', 184, { host: R, debug: R, guest: R }),
  field(0x111000030000000dn, 'VIRTUAL_TSC', 186),
  field(0x911000010000000en, 'NUM_CPUID_VALUES', 186, { host: R, debug: R }),
  field(0x911000020000000fn, 'XBUFF_SIZE', 220, { host: R, debug: R }),
  field(0x9110000300000010n, 'NOTIFY_ENABLES', 224, { debug: [ALL, 0x1n], guest: [0x1n, 0x1n] }),
  field(0x9110000300000011n, 'HP_LOCK_TIMEOUT', 232, { host: RW, debug: RW }),
  field(0x9110000300000012n, 'VM_CTLS', 240, { fields: 4, host: [ALL, 0xfn], debug: [ALL, 0xfn] }),
  field(0x9110000300000016n, 'CONFIG_FLAGS', 280, { host: R, debug: R, guest: R, service: R }),
  field(0x9110000300000017n, 'TD_CTLS', 288, { debug: R, guest: [0x800000000000000fn, 0x800000000000000fn] }),
  field(0x9110000000000018n, 'VIRT_MAXPA', 296, { host: R, debug: R }),
  field(0x9110000000000019n, 'TOPOLOGY_ENUM_CONFIGURED', 300, { host: R, debug: R, guest: R, service: R }),
  field(0x911000000000001an, 'VE_REDUCTION_VALID', 301, { host: R, debug: R, guest: R, service: R }),
  field(0x9110000300000021n, 'CPUID_FIXED0_BITMAP', 3848, { host: R, debug: R, service: R }),
  field(0x9110000300000022n, 'FEATURE_PARAVIRT_CTLS', 3928, { debug: R, guest: [0xfffn, 0xfffn] }),
  field(0x9110000300000023n, 'FILTERED_EVENTS_COUNT', 3936, { fields: 4, host: R, debug: R }),
  field(0x9110000200000028n, 'FIELD_SUPPORT_AT_INIT', 3972, { host: R, debug: R }),
  field(0x9110000000000080n, 'CPUID_VALID', 308, { fields: 80, debug: R }),
  field(0x9110000200000200n, 'CPUID4_NATIVE_VALUES', 3856, { fields: 4, elements: 4, debug: R }),
  field(0x9110000200000800n, 'XBUFF_OFFSETS', 400, { fields: 19, host: R, debug: R }),
  // class 18: TDCS TLB EPOCH TRACKING
  field(0x9210000300000000n, 'TD_EPOCH', 512, { host: R, debug: R }),
  field(0x9210000100000001n, 'REFCOUNT', 520, { fields: 2, host: R, debug: R }),
  // class 19: TDCS MEASUREMENT
  field(0x1310000300000000n, 'MRTD', 576, { elements: 6, host: R, debug: R, guest: R }),
  field(0x1310000300000010n, 'MRCONFIGID', 624, { elements: 6, host: R, debug: R, guest: R }),
  field(0x1310000300000018n, 'MROWNER', 672, { elements: 6, host: R, debug: R, guest: R }),
  field(0x1310000300000020n, 'MROWNERCONFIG', 720, { elements: 6, host: R, debug: R, guest: R }),
  field(0x1310000300000040n, 'RTMR', 768, { fields: 4, elements: 6, debug: R, guest: R }),
  // class 20: TDCS CPUID
  field(0x9410000300000000n, 'CPUID_VALUES', 2048, {
    fields: 80,
    elements: 2,
    host: R,
    debug: R,
    service: R,
  }),
  // class 22: TDCS VIRT MSR VALUES
  field(0x961000030000010an, 'VIRTUAL_IA32_ARCH_CAPABILITIES', 1912, { debug: R }),
  field(0x9610000300000480n, 'VIRTUAL_IA32_VMX_BASIC', 1792, { debug: R }),
  field(0x9610000300000485n, 'VIRTUAL_IA32_VMX_MISC', 1800, { debug: R }),
  field(0x9610000300000486n, 'VIRTUAL_IA32_VMX_CR0_FIXED0', 1808, { debug: R }),
  field(0x9610000300000487n, 'VIRTUAL_IA32_VMX_CR0_FIXED1', 1816, { debug: R }),
  field(0x9610000300000488n, 'VIRTUAL_IA32_VMX_CR4_FIXED0', 1824, { debug: R }),
  field(0x9610000300000489n, 'VIRTUAL_IA32_VMX_CR4_FIXED1', 1832, { debug: R }),
  field(0x961000030000048bn, 'VIRTUAL_IA32_VMX_PROCBASED_CTLS2', 1840, { debug: R }),
  field(0x961000030000048cn, 'VIRTUAL_IA32_VMX_EPT_VPID_CAP', 1848, { debug: R }),
  field(0x961000030000048dn, 'VIRTUAL_IA32_VMX_TRUE_PINBASED_CTLS', 1856, { debug: R }),
  field(0x961000030000048en, 'VIRTUAL_IA32_VMX_TRUE_PROCBASED_CTLS', 1864, { debug: R }),
  field(0x961000030000048fn, 'VIRTUAL_IA32_VMX_TRUE_EXIT_CTLS', 1872, { debug: R }),
  field(0x9610000300000490n, 'VIRTUAL_IA32_VMX_TRUE_ENTRY_CTLS', 1880, { debug: R }),
  field(0x9610000300000491n, 'VIRTUAL_IA32_VMX_VMFUNC', 1888, { debug: R }),
  field(0x9610000300000492n, 'VIRTUAL_IA32_VMX_PROCBASED_CTLS3', 1896, { debug: R }),
  field(0x9610000300000493n, 'VIRTUAL_IA32_VMX_EXIT_CTLS2', 1904, { debug: R }),
  // class 24: TDCS MIGRATION
  field(0x9810000000000001n, 'MIG_DEC_KEY_SET', 1408, { host: R, debug: R }),
  field(0x9810000200000002n, 'EXPORT_COUNT', 1412, { host: R, debug: R, service: R }),
  field(0x9810000200000003n, 'IMPORT_COUNT', 1416, { host: R, debug: R, service: R }),
  field(0x9810000200000004n, 'MIG_EPOCH', 1420, { host: R, debug: R }),
  field(0x9810000300000005n, 'BW_EPOCH', 1424, { host: R, debug: R }),
  field(0x9810000300000006n, 'TOTAL_MB_COUNT', 1432, { host: R, debug: R }),
  field(0x9810000300000010n, 'MIG_DEC_KEY', 1440, { elements: 4, debug: R, service: RW }),
  field(0x9810000300000014n, 'MIG_DEC_WORKING_KEY', 1472, { elements: 4, debug: R, service: R }),
  field(0x9810000300000018n, 'MIG_ENC_KEY', 1504, { elements: 4, debug: R, service: R }),
  field(0x981000030000001cn, 'MIG_ENC_WORKING_KEY', 1536, { elements: 4, debug: R, service: R }),
  field(0x9810000100000020n, 'MIG_VERSION', 1568, { host: R, debug: R, service: RW }),
  field(0x9810000100000021n, 'MIG_WORKING_VERSION', 1570, { host: R, debug: R, service: R }),
  field(0x9810000300000030n, 'DIRTY_COUNT', 1576, { host: R, debug: R }),
  field(0x9810000300000031n, 'MIG_COUNT', 1584, { host: R, debug: R }),
  field(0x9810000100000032n, 'NUM_MIGS', 1592, { host: R, debug: R }),
  field(0x9810000200000034n, 'NUM_MIGRATED_VCPUS', 1596, { host: R, debug: R }),
  field(0x9810000300000040n, 'PRE_IMPORT_UUID', 1600, {
    elements: 4,
    host: R,
    debug: R,
    guest: R,
    service: R,
  }),
  // class 25: TDCS SERVICE TD
  field(0x9910000300000000n, 'SERVTD_HASH', 3328, { elements: 6, host: R, debug: R, guest: R, service: R }),
  field(0x9910000100000006n, 'SERVTD_NUM', 3376, { host: R, debug: R, guest: R, service: R }),
  field(0x9910000300000080n, 'SERVTD_BINDINGS_TABLE', 3472, { elements: 16, host: R, debug: R, guest: R }),
  // class 26: TDCS MIGSC LINKS
  field(0x9a10000300000000n, 'MIGSC_LINKS', 20480, { fields: 512, host: R, debug: R }),
  // class 28: TDCS X2APIC IDS
  field(0x9c10000200000000n, 'X2APIC_IDS', 4352, { fields: 576, host: R, debug: R, service: R }),
  // class 32: TDCS MSR BITMAPS
  field(0x2010000300000000n, 'MSR_BITMAPS', 8192, { fields: 512, debug: R }),
  // class 33: TDCS SECURE EPT ROOT
  field(0x2110000300000000n, 'SEPT_ROOT', 12288, { fields: 512, debug: R }),
  // class 37: TDCS L2 SECURE EPT ROOT 1
  field(0x2510000300000000n, 'L2_SEPT_ROOT_1', 24576, { fields: 512, debug: R }),
  // class 41: TDCS L2 SECURE EPT ROOT 2
  field(0x2910000300000000n, 'L2_SEPT_ROOT_2', 28672, { fields: 512, debug: R }),
  // class 45: TDCS L2 SECURE EPT ROOT 3
  field(0x2d10000300000000n, 'L2_SEPT_ROOT_3', 32768, { fields: 512, debug: R }),
];
