/**
 * TDX_FEATURES0, by bit (module facts 0; bits 23, 51 and 53 from Linux host rules 1.7). `linux` says what the host
 * kernel makes of a bit, where it looks at it.
 */

/** One feature bit. @public */
export interface Feature {
  readonly bit: number;
  /** ABI name. */
  readonly name: string;
  /** What it brings, in a few words, where its name does not say all that is known. */
  readonly text?: string;
  /** What Linux does with it. */
  readonly linux?: string;
}

/** Every feature bit known, lowest first. @public */
export const FEATURES: readonly Feature[] = [
  { bit: 0, name: 'TD_MIGRATION', text: 'live migration of TDs between hosts' },
  {
    bit: 1,
    name: 'TD_PRESERVING',
    text: 'module update while TDs stay alive',
    linux: 'gates the run-time update and the P-SEAMLDR files in sysfs',
  },
  { bit: 2, name: 'SERVICE_TD', text: 'service TDs bound to other TDs' },
  { bit: 3, name: 'TDG_VP_RDWR', text: 'a TD reads and writes its VCPU metadata' },
  { bit: 4, name: 'RELAXED_MEM_MNG_CONCURRENCY', text: 'memory leaves take shared locks where they can' },
  { bit: 5, name: 'CPUID_VIRT_GUEST_CTRL', text: 'a TD asks for #VE on CPUID' },
  { bit: 6, name: 'TDX_IO', text: 'TDX Connect: trusted devices' },
  { bit: 7, name: 'TD_PARTITIONING', text: 'L2 VMs inside a TD' },
  { bit: 8, name: 'LOCAL_ATTESTATION', text: 'a TD verifies reports made on the same machine' },
  { bit: 9, name: 'TD_ENTRY_ENHANCEMENTS' },
  { bit: 10, name: 'HOST_PRIORITY_LOCKS', text: 'the host goes before a guest on contended locks' },
  {
    bit: 11,
    name: 'CONFIG_IA32_ARCH_CAPABILITIES',
    text: "the host configures a TD's IA32_ARCH_CAPABILITIES",
  },
  { bit: 16, name: 'PENDING_EPT_VIOLATION_V2', text: 'second form of EPT violations on pending pages' },
  { bit: 17, name: 'FMS_CONFIG', text: 'the host configures family, model and stepping' },
  {
    bit: 18,
    name: 'NO_RBP_MOD',
    text: 'TD entry leaves RBP alone',
    linux: 'mandatory: initialisation ends with -EINVAL without it',
  },
  { bit: 19, name: 'L2_TLB_INVD_OPT', text: 'cheaper TLB invalidation for L2 VMs' },
  {
    bit: 20,
    name: 'TOPOLOGY_ENUM',
    text: 'CPU topology leaves virtualised for a TD',
    linux: 'mandatory for KVM: kvm_intel turns TDX off without it',
  },
  { bit: 21, name: 'PARTITIONED_TD_MIGRATION', text: 'migration of TDs that hold L2 VMs' },
  {
    bit: 23,
    name: 'CLFLUSH_BEFORE_ALLOC',
    text: 'a page must be flushed before it is handed over',
    linux: 'not needed: the kernel always flushes',
  },
  { bit: 24, name: 'EVENT_FILTERING', text: 'filters on performance events' },
  { bit: 25, name: 'ICSSD', text: 'control of instruction-count single-step defence' },
  { bit: 26, name: 'FIXED_CTR12_PROF', text: 'profiling with fixed counters 1 and 2' },
  { bit: 27, name: 'MAXPA_VIRT', text: 'virtual physical-address width' },
  { bit: 28, name: 'APX', text: 'extended general registers in a TD' },
  { bit: 29, name: 'CPUID2_VIRT', text: 'CPUID leaf 2 virtualised' },
  { bit: 30, name: 'VE_REDUCTION', text: 'a TD may ask for fewer #VE' },
  { bit: 31, name: 'ENHANCED_EVENT_FILTERING', text: 'wider performance-event filters' },
  { bit: 32, name: 'TDX_CONNECT_PARTITIONING', text: 'trusted devices for L2 VMs' },
  { bit: 33, name: 'MAXGPA_VIRT', text: 'virtual guest-physical-address width' },
  {
    bit: 36,
    name: 'DYNAMIC_PAMT',
    text: 'the 4 KiB PAMT is lent page by page',
    linux: 'with it, static PAMT is a bitmap: about 1/100 of the memory cost',
  },
  { bit: 37, name: 'FATAL_DIAGNOSTICS', text: 'details of a fatal shutdown left for the host' },
  { bit: 38, name: 'PAGE_RELEASE', text: 'a TD releases pages it accepted' },
  { bit: 39, name: 'NRX' },
  { bit: 40, name: 'ENHANCED_INTR_STATE' },
  { bit: 41, name: 'NON_BLOCKING_EXPORT', text: 'export without blocking pages first' },
  { bit: 42, name: 'PERF_MASK' },
  { bit: 43, name: 'SCAN_EXPORT_RESTORE' },
  { bit: 44, name: 'IMPORT_PAGE_STATUS' },
  { bit: 45, name: 'ENHANCED_INTR_VIRT' },
  { bit: 46, name: 'VE_INFO_INTR_STATE', text: 'interruptibility in the #VE information' },
  {
    bit: 47,
    name: 'UPDATE_COMPATIBILITY',
    text: 'update refuses while a TD is at a sensitive step',
    linux: 'known, but the update does not ask for it',
  },
  {
    bit: 51,
    name: 'ENHANCED_DEMOTE_INTERRUPTIBILITY',
    text: 'an interrupted split resumes instead of restarting',
    linux: 'wanted by the huge-page series',
  },
  {
    bit: 53,
    name: 'SYS_DISABLE',
    text: 'the module hands everything back for kexec',
    linux: 'not looked at: the kernel calls TDH.SYS.DISABLE anyway',
  },
];

/** The features set in a TDX_FEATURES0 value, lowest bit first; bits without a name come back as `BIT_n`. @public */
export function featuresOf(features0: bigint): readonly Feature[] {
  const found: Feature[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if (((features0 >> BigInt(bit)) & 1n) === 0n) continue;
    found.push(FEATURES.find((feature) => feature.bit === bit) ?? { bit, name: `BIT_${bit}` });
  }
  return found;
}

/** True when the feature called `name` is set in `features0`. Throws a plain Error on a name that does not exist. @public */
export function hasFeature(features0: bigint, name: string): boolean {
  const feature = FEATURES.find((candidate) => candidate.name === name);
  if (feature === undefined) throw new Error(`no TDX feature is called ${name}`);
  return ((features0 >> BigInt(feature.bit)) & 1n) === 1n;
}
