/**
 * Metadata fields of TDs and VCPUs that Linux reads or writes (Linux host rules 1.7, guest facts), by identifier, and
 * the names of all field classes (facts: TD metadata table).
 */

/** A TD or VCPU field. @internal */
export interface TdField {
  readonly name: string;
  readonly id: bigint;
  /** The form Linux writes, where it leaves out bits that the leaf implies. */
  readonly linuxId?: bigint;
  readonly fields?: number;
  readonly elements?: number;
  readonly text: string;
}

/** @internal */
export const TD_FIELDS: readonly TdField[] = [
  { name: 'FATAL', id: 0x8010_0000_0000_0001n, text: 'the TD had a fatal error' },
  { name: 'NUM_TDCX', id: 0x8010_0002_0000_0002n, text: 'control pages the TD has' },
  { name: 'CHLDCNT', id: 0x8010_0003_0000_0004n, text: '4 KiB pages that belong to the TD' },
  {
    name: 'LIFECYCLE_STATE',
    id: 0x8010_0002_0000_0005n,
    text: '0 KeyID assigned, 1 keys configured, 2 blocked, 3 teardown',
  },
  { name: 'TD_UUID', id: 0x8010_0003_0000_0020n, elements: 4, text: 'random identity of the TD' },
  { name: 'HKID', id: 0x8110_0001_0000_0001n, text: 'KeyID of the TD' },
  { name: 'NUM_VCPUS', id: 0x9010_0002_0000_0001n, text: 'VCPUs initialised' },
  {
    name: 'OP_STATE',
    id: 0x9010_0002_0000_0004n,
    text: 'operation state: 0 uninitialised, 1 initialised, 2 runnable, then migration',
  },
  {
    name: 'ATTRIBUTES',
    id: 0x1110_0003_0000_0000n,
    text: 'attributes of the TD: DEBUG 0, SEPT_VE_DISABLE 28, PKS 30, PERFMON 63',
  },
  { name: 'XFAM', id: 0x1110_0003_0000_0001n, text: 'extended features the TD may use' },
  { name: 'MAX_VCPUS', id: 0x1110_0002_0000_0002n, text: 'VCPUs the TD may have' },
  { name: 'GPAW', id: 0x1110_0000_0000_0003n, text: 'guest address width: 0 is 48 bits, 1 is 52' },
  { name: 'EPTP', id: 0x1110_0003_0000_0004n, text: 'root and depth of the secure EPT' },
  { name: 'TSC_OFFSET', id: 0x1110_0003_0000_000an, text: 'read by KVM after TDH.MNG.INIT' },
  { name: 'TSC_MULTIPLIER', id: 0x1110_0003_0000_000bn, text: 'read by KVM after TDH.MNG.INIT' },
  { name: 'TSC_FREQUENCY', id: 0x1110_0001_0000_000cn, text: 'virtual TSC in units of 25 MHz' },
  {
    name: 'NOTIFY_ENABLES',
    id: 0x9110_0003_0000_0010n,
    linuxId: 0x9100_0000_0000_0010n,
    text: 'bit 0: tell the guest of zero-step attacks by #VE',
  },
  {
    name: 'CONFIG_FLAGS',
    id: 0x9110_0003_0000_0016n,
    linuxId: 0x1110_0003_0000_0016n,
    text: 'flags from TD_PARAMS, bit 1 FLEXIBLE_PENDING_VE',
  },
  {
    name: 'TD_CTLS',
    id: 0x9110_0003_0000_0017n,
    linuxId: 0x1110_0003_0000_0017n,
    text: 'the guest turns #VE on pending pages off (bit 0)',
  },
  {
    name: 'TOPOLOGY_ENUM_CONFIGURED',
    id: 0x9110_0000_0000_0019n,
    linuxId: 0x9100_0000_0000_0019n,
    text: 'the host gave every VCPU an x2APIC id, so topology leaves are virtualised',
  },
  {
    name: 'FEATURE_PARAVIRT_CTLS',
    id: 0x9110_0003_0000_0022n,
    text: 'features the guest handles by itself instead of #VE',
  },
  { name: 'MRTD', id: 0x1310_0003_0000_0000n, elements: 6, text: 'measurement of the initial memory' },
  { name: 'RTMR', id: 0x1310_0003_0000_0040n, fields: 4, elements: 6, text: 'run-time measurements' },
  {
    name: 'CPUID_VALUES',
    id: 0x9410_0003_0000_0000n,
    fields: 80,
    elements: 2,
    text: 'CPUID values the guest sees',
  },
  {
    name: 'VCPU_STATE_DETAILS',
    id: 0x9120_0003_0000_0100n,
    text: 'bit 0: an interrupt is pending; KVM reads it before halting',
  },
  {
    name: 'VCPU_STATE',
    id: 0xa020_0000_0000_0000n,
    text: '0 uninitialised, 2 ready, 4 active, 8 disabled, 16 import',
  },
  { name: 'PEND_NMI', id: 0x2020_0000_0000_000bn, text: 'KVM sets it to inject an NMI' },
];

/** Class names by context (0 system, 1 TD, 2 VCPU) and class code. @internal */
export const FIELD_CLASSES: readonly Readonly<Record<number, string>>[] = [
  {
    0: 'platform information',
    8: 'module version',
    9: 'handoff',
    10: 'module information',
    16: 'CMRs',
    17: 'TDMRs and PAMT',
    24: 'TD control structures',
    25: 'TD configurability',
    32: 'migration',
    33: 'service TDs',
    34: 'partitioning',
    48: 'TDX Connect',
  },
  {
    0: 'TDR: TD management',
    1: 'TDR: keys',
    2: 'TDR: TD preserving',
    16: 'TDCS: TD management',
    17: 'TDCS: execution controls',
    18: 'TDCS: TLB epoch tracking',
    19: 'TDCS: measurement',
    20: 'TDCS: CPUID',
    22: 'TDCS: virtual MSR values',
    24: 'TDCS: migration',
    25: 'TDCS: service TDs',
    26: 'TDCS: migration stream links',
    28: 'TDCS: x2APIC ids',
    32: 'TDCS: MSR bitmaps',
    33: 'TDCS: secure EPT root',
    37: 'TDCS: L2 secure EPT root 1',
    41: 'TDCS: L2 secure EPT root 2',
    45: 'TDCS: L2 secure EPT root 3',
  },
  {
    0: 'TDVPS: VMCS',
    1: 'TDVPS: virtual APIC page',
    2: 'TDVPS: #VE information',
    16: 'TDVPS: general registers',
    17: 'TDVPS: other guest state',
    18: 'TDVPS: extended state',
    19: 'TDVPS: guest MSRs',
    32: 'TDVPS: management',
    33: 'TDVPS: CPUID control',
    34: 'TDVPS: EPT violation log',
    36: 'TDVPS: VMCS of L2 VM 1',
    37: 'TDVPS: MSR bitmaps of L2 VM 1',
    38: 'TDVPS: shadow MSR bitmaps of L2 VM 1',
    44: 'TDVPS: VMCS of L2 VM 2',
    45: 'TDVPS: MSR bitmaps of L2 VM 2',
    46: 'TDVPS: shadow MSR bitmaps of L2 VM 2',
    52: 'TDVPS: VMCS of L2 VM 3',
    53: 'TDVPS: MSR bitmaps of L2 VM 3',
    54: 'TDVPS: shadow MSR bitmaps of L2 VM 3',
  },
];
