/** What VP.INIT writes into the VMCS of a TD's vCPU and of its L2 VMs (module facts 10). */
import type { PlatformSnapshot } from '../platform.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import type { ControlStructure } from './control-structure.ts';
import { ATTRIBUTES, hasAll, hasAny, XFAM } from './features.ts';
import { CPUID_FLAG, MAX_VMS, NULL_PA, TDCS, TDCS_PAGE, TDR, TDVPS } from './layout.ts';
import type { TrustDomain } from './trust-domain.ts';
import { CR0_HOST_OWNED } from './vcpu-init.ts';
import { VMCS, Vmcs } from './vmcs.ts';

const ALL = 0xffff_ffff_ffff_ffffn;
/** A flat data segment, as after a reset into 32-bit protected mode. */
const FLAT_LIMIT = 0xffff_ffffn;
const DATA_AR = 0xc093n;

/** Guest state after VP.INIT: 32-bit protected mode at the reset vector, ready for long mode. */
const GUEST_STATE: readonly (readonly [encoding: number, value: bigint])[] = [
  [VMCS.GUEST_DR7, 0x400n],
  [VMCS.GUEST_RIP, 0xffff_fff0n],
  [VMCS.GUEST_RFLAGS, 2n],
  [VMCS.GUEST_CS_LIMIT, FLAT_LIMIT],
  [VMCS.GUEST_CS_AR, 0xc09bn],
  [VMCS.GUEST_DS_LIMIT, FLAT_LIMIT],
  [VMCS.GUEST_DS_AR, DATA_AR],
  [VMCS.GUEST_ES_LIMIT, FLAT_LIMIT],
  [VMCS.GUEST_ES_AR, DATA_AR],
  [VMCS.GUEST_FS_LIMIT, FLAT_LIMIT],
  [VMCS.GUEST_FS_AR, DATA_AR],
  [VMCS.GUEST_GS_LIMIT, FLAT_LIMIT],
  [VMCS.GUEST_GS_AR, DATA_AR],
  [VMCS.GUEST_SS_LIMIT, FLAT_LIMIT],
  [VMCS.GUEST_SS_AR, DATA_AR],
  [VMCS.GUEST_LDTR_LIMIT, 0xffffn],
  [VMCS.GUEST_LDTR_AR, 0x1_0082n],
  [VMCS.GUEST_TR_LIMIT, 0xffffn],
  [VMCS.GUEST_TR_AR, 0x8bn],
  [VMCS.GUEST_GDTR_LIMIT, 0xffffn],
  [VMCS.GUEST_PAT, 0x0007_0406_0007_0406n],
  [VMCS.GUEST_EFER, 0x901n],
  [VMCS.GUEST_CR0, 0x21n],
  [VMCS.GUEST_CR4, 0x2040n],
];

/** Controls that are the same for every vCPU; addresses that nothing is at hold all ones. */
const CONTROLS: readonly (readonly [encoding: number, value: bigint])[] = [
  [VMCS.APIC_ACCESS_PAGE, NULL_PA],
  [VMCS.POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0xffffn],
  [VMCS.POSTED_INTERRUPT_DESCRIPTOR, NULL_PA],
  // Machine checks always exit
  [VMCS.EXCEPTION_BITMAP, 1n << 18n],
  [VMCS.IO_BITMAP_A, NULL_PA],
  [VMCS.IO_BITMAP_B, NULL_PA],
  [VMCS.EPTP_LIST, NULL_PA],
  [VMCS.VMREAD_BITMAP, NULL_PA],
  [VMCS.VMWRITE_BITMAP, NULL_PA],
  [VMCS.ENCLS_EXITING, ALL],
  [VMCS.PML_ADDRESS, NULL_PA],
  [VMCS.PCONFIG_EXITING, ALL],
  [VMCS.OSV_CVP, NULL_PA],
  [VMCS.EXIT_MSR_STORE, NULL_PA],
  [VMCS.EXIT_MSR_LOAD, NULL_PA],
  [VMCS.ENTRY_MSR_LOAD, NULL_PA],
  [VMCS.VMCS_LINK_POINTER, NULL_PA],
  [VMCS.GUEST_PDPTE0, NULL_PA],
  [VMCS.GUEST_PDPTE0 + 2, NULL_PA],
  [VMCS.GUEST_PDPTE0 + 4, NULL_PA],
  [VMCS.GUEST_PDPTE0 + 6, NULL_PA],
];

/** IA32_PERF_GLOBAL_CTRL of a profiled TD: eight general counters; of others: instructions retired. */
const PERF_CTRL_PROFILED = 0xffn;
const PERF_CTRL_DEFAULT = 1n << 32n;

const MWAIT_EXITING = 1 << 10;
const RDPMC_EXITING = 1 << 11;
const MONITOR_EXITING = 1 << 29;
const WAIT_PAUSE = 1 << 26;
const PCONFIG = 1 << 27;
const ENCLV_EXITING = 1 << 28;
const EXIT_SAVE_PERF_CTRL = 1 << 30;
const ENTRY_LOAD_PKRS = 1 << 22;
/** Tertiary controls. */
const WIDE_GPA = 1n << 5n;
const VIRTUAL_SPEC_CTRL = 1n << 7n;

const CR0_PE_NE = (1n << 0n) | (1n << 5n);
const CR0_PG = 1n << 31n;
const CR4_MCE = 1n << 6n;
const CR4_VMXE = 1n << 13n;
/** CR4 bits that a TD never changes itself: MCE, VMXE, SMXE and what is reserved. */
const CR4_HOST_OWNED =
  CR4_MCE | CR4_VMXE | (0b11n << 14n) | (1n << 26n) | (0b111n << 29n) | (0x7fff_ffffn << 33n);

/** Initialises the VMCS of virtual machine `vm`: 0 for the TD itself, from 1 for its L2 VMs. @internal */
export function initialiseVmcs(
  platform: PlatformSnapshot,
  td: TrustDomain,
  tdvps: ControlStructure,
  vm: number,
): void {
  const vmcs = new Vmcs(tdvps, vm);
  const { tdcs } = td;
  for (const [encoding, value] of GUEST_STATE) vmcs.write(encoding, value);
  for (const [encoding, value] of CONTROLS) vmcs.write(encoding, value);
  const profiled = hasAny(tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.PERFMON);
  vmcs.write(VMCS.GUEST_PERF_GLOBAL_CTRL, profiled ? PERF_CTRL_PROFILED : PERF_CTRL_DEFAULT);
  if ((platform.vmx.procBased2 & ENCLV_EXITING) !== 0) vmcs.write(VMCS.ENCLV_EXITING, ALL);
  writeAddresses(td, tdvps, vmcs, vm);
  writeExecutionControls(platform, td, vmcs, vm);
  vmcs.write(VMCS.TSC_MULTIPLIER, tdcs.u64(TDCS.TSC_MULTIPLIER));
  vmcs.write(VMCS.TSC_OFFSET, tdcs.u64(TDCS.TSC_OFFSET));
  writeControlRegisterOwners(platform, td, tdvps, vmcs, vm);
  vmcs.writeNumber(VMCS.VPID, vpid(vm, td.keyId));
}

/** Every VM of every TD has a VPID of its own. */
function vpid(vm: number, keyId: number): number {
  return keyId * MAX_VMS + vm;
}

function writeAddresses(td: TrustDomain, tdvps: ControlStructure, vmcs: Vmcs, vm: number): void {
  const tdcx = (page: number): bigint => td.tdr.u64(TDR.TDCX_PA + 8 * page);
  const tdcxOfTdvps = (page: number): bigint => tdvps.u64(TDVPS.TDVPS_PAGE_PA + 8 * page);
  if (vm === 0) {
    vmcs.write(VMCS.VIRTUAL_APIC_PAGE, tdcxOfTdvps(2));
    vmcs.write(VMCS.MSR_BITMAP, tdcx(TDCS_PAGE.MSR_BITMAPS));
    vmcs.write(VMCS.VE_INFO_ADDRESS, tdcxOfTdvps(0));
  } else {
    vmcs.write(VMCS.VIRTUAL_APIC_PAGE, NULL_PA);
    vmcs.write(VMCS.MSR_BITMAP, tdcxOfTdvps(4 + 3 * vm));
    vmcs.write(VMCS.VE_INFO_ADDRESS, NULL_PA);
  }
  for (const encoding of [VMCS.PASID_LOW, VMCS.PASID_HIGH, VMCS.SHARED_EPTP]) {
    vmcs.write(encoding, tdcx(TDCS_PAGE.ZERO));
  }
  vmcs.writeNumber(VMCS.TD_HKID, td.keyId);
  vmcs.write(VMCS.EPTP, td.eptpWithoutKeyId(vm));
}

function writeExecutionControls(platform: PlatformSnapshot, td: TrustDomain, vmcs: Vmcs, vm: number): void {
  const controls = vm === 0 ? platform.vmx : platform.vmxL2;
  const attributes = td.tdcs.u64(TDCS.ATTRIBUTES);
  const profiled = hasAny(attributes, ATTRIBUTES.PERFMON);
  const assign = (value: number, bits: number, on: boolean): number =>
    (on ? value | bits : value & ~bits) >>> 0;
  const monitor = td.cpuidFlag(CPUID_FLAG.MONITOR_MWAIT);
  const savesPerf = hasAny(attributes, ATTRIBUTES.PERFMON | ATTRIBUTES.DEBUG);
  const loadsPkrs = hasAny(attributes, ATTRIBUTES.PKS | ATTRIBUTES.DEBUG);
  const monitorExiting = assign(controls.procBased, MWAIT_EXITING | MONITOR_EXITING, !monitor);
  const waitPause = assign(controls.procBased2, WAIT_PAUSE, td.cpuidFlag(CPUID_FLAG.WAITPKG));
  const virtualSpecCtrl = platform.features.ddpd !== td.cpuidFlag(CPUID_FLAG.DDPD);
  vmcs.writeNumber(VMCS.EXIT_CTLS, assign(controls.exit, EXIT_SAVE_PERF_CTRL, savesPerf));
  vmcs.writeNumber(VMCS.ENTRY_CTLS, assign(controls.entry, ENTRY_LOAD_PKRS, loadsPkrs));
  vmcs.writeNumber(VMCS.PINBASED_CTLS, controls.pinBased);
  vmcs.writeNumber(VMCS.PROCBASED_CTLS, assign(monitorExiting, RDPMC_EXITING, !profiled));
  vmcs.writeNumber(VMCS.PROCBASED_CTLS2, assign(waitPause, PCONFIG, td.cpuidFlag(CPUID_FLAG.PCONFIG)));
  vmcs.write(
    VMCS.PROCBASED_CTLS3,
    (td.tdcs.flag(TDCS.GPAW) ? WIDE_GPA : 0n) | (virtualSpecCtrl ? VIRTUAL_SPEC_CTRL : 0n),
  );
}

/** Which bits of CR0 and CR4 the TD may change without the module, and what it reads of the others. */
function writeControlRegisterOwners(
  platform: PlatformSnapshot,
  { tdcs }: TrustDomain,
  tdvps: ControlStructure,
  vmcs: Vmcs,
  vm: number,
): void {
  const msr = (address: number): bigint => platform.msrs.get(address)!;
  const cr0Fixed0 = msr(MODULE_MSR.VMX_CR0_FIXED0);
  const cr4Fixed0 = msr(MODULE_MSR.VMX_CR4_FIXED0);
  const owned = { cr0Mask: ALL, cr0Shadow: CR0_PE_NE, cr4Mask: ALL, cr4Shadow: CR4_MCE | CR4_VMXE };
  if (vm === 0) {
    const cr0NotOne = ALL & ~msr(MODULE_MSR.VMX_CR0_FIXED1);
    const cr4NotOne = ALL & ~msr(MODULE_MSR.VMX_CR4_FIXED1);
    owned.cr0Mask = ((cr0Fixed0 | cr0NotOne) & ~CR0_PG) | CR0_PE_NE | CR0_HOST_OWNED;
    owned.cr0Shadow = cr0Fixed0 | CR0_PE_NE;
    owned.cr4Mask = cr4Fixed0 | cr4NotOne | CR4_HOST_OWNED | featureCr4(tdcs);
    owned.cr4Shadow = (cr4Fixed0 & ~CR4_VMXE) | CR4_MCE;
  }
  vmcs.write(VMCS.CR0_MASK, owned.cr0Mask);
  vmcs.write(VMCS.CR0_SHADOW, owned.cr0Shadow);
  vmcs.write(VMCS.CR4_MASK, owned.cr4Mask);
  vmcs.write(VMCS.CR4_SHADOW, owned.cr4Shadow);
  tdvps.setU64(TDVPS.SHADOW_CR0_GUEST_HOST_MASK + 8 * vm, owned.cr0Mask);
  tdvps.setU64(TDVPS.SHADOW_CR0_READ_SHADOW + 8 * vm, vm === 0 ? owned.cr0Shadow : 0n);
  tdvps.setU64(TDVPS.SHADOW_CR4_GUEST_HOST_MASK + 8 * vm, owned.cr4Mask);
  tdvps.setU64(TDVPS.SHADOW_CR4_READ_SHADOW + 8 * vm, vm === 0 ? owned.cr4Shadow : 0n);
}

/** CR4 bits of features that the TD does not have. */
function featureCr4(tdcs: ControlStructure): bigint {
  const attributes = tdcs.u64(TDCS.ATTRIBUTES);
  const xfam = tdcs.u64(TDCS.XFAM);
  let mask = 1n << 19n; // Key Locker
  if (!hasAny(xfam, XFAM.PKRU)) mask |= 1n << 22n;
  if (!hasAll(xfam, XFAM.CET)) mask |= 1n << 23n;
  if (!hasAny(xfam, XFAM.UINTR)) mask |= 1n << 25n;
  if (!hasAny(attributes, ATTRIBUTES.PKS)) mask |= 1n << 24n;
  if (!hasAny(attributes, ATTRIBUTES.LASS)) mask |= 1n << 27n;
  return mask;
}
