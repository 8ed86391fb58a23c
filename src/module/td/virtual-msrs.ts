/** Values of MSRs that a TD reads from its TDCS: the VMX capabilities of its L2 VMs and IA32_ARCH_CAPABILITIES. */
import type { PlatformSnapshot } from '../platform.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import type { ControlStructure } from './control-structure.ts';
import { ATTRIBUTES, hasAll, hasAny, XFAM } from './features.ts';
import { CPUID_FLAG, TDCS } from './layout.ts';
import type { TdParams } from './td-params.ts';
import type { TrustDomain } from './trust-domain.ts';

/** Positions in TDCS.VIRT_MSRS. @public */
export const VIRTUAL_MSR = {
  VMX_BASIC: 0,
  VMX_MISC: 1,
  VMX_CR0_FIXED0: 2,
  VMX_CR0_FIXED1: 3,
  VMX_CR4_FIXED0: 4,
  VMX_CR4_FIXED1: 5,
  VMX_PROCBASED_CTLS2: 6,
  VMX_EPT_VPID_CAP: 7,
  VMX_TRUE_PINBASED_CTLS: 8,
  VMX_TRUE_PROCBASED_CTLS: 9,
  VMX_TRUE_EXIT_CTLS: 10,
  VMX_TRUE_ENTRY_CTLS: 11,
  VMX_VMFUNC: 12,
  VMX_PROCBASED_CTLS3: 13,
  VMX_EXIT_CTLS2: 14,
  ARCH_CAPABILITIES: 15,
} as const;

/** Control bits that a TD may change in the VMCS of its L2 VMs (release 1.5.25). */
const L1_WRITABLE = {
  procBased: 0x48d9_9a04,
  procBased2: 0x0c51_3e0c,
  procBased3: 0xen,
  entry: 0x200,
} as const;
const MWAIT_EXITING = 1 << 10;
const RDPMC_EXITING = 1 << 11;
const MONITOR_EXITING = 1 << 29;
const WAIT_PAUSE = 1 << 26;
const PCONFIG = 1 << 27;
const EXIT_PERF_GLOBAL_CTRL = (1 << 12) | (1 << 30);
const ENTRY_PERF_GLOBAL_CTRL = 1 << 13;
const ENTRY_LOAD_PKRS = 1 << 22;

/** Exit information on INS and OUTS, TRUE control MSRs, events without error code. */
const VMX_BASIC = 0b111n << 54n;
/** Unrestricted guest, HLT and shutdown, trace in VMX, four CR3 targets, VMWRITE anywhere, events of length 0. */
const VMX_MISC = 0x6004_40e0n;
/** Execute-only, 2 MiB and 1 GiB pages, advanced exit information. */
const EPT_VPID_CAP = 0x43_0001n;
const EPT_SHADOW_STACK = 1n << 23n;
const EPT_HLAT_PREFIX = 0x3fn << 48n;

const CR0_INIT = 0x21n;
const CR0_VARIABLE = 0x8005_001fn;
const CR4_INIT = 0x2040n;
const CR4_WRITABLE = 0x1bff_1fbfn;
/** CR4 bits that come with a feature of the TD; Key Locker is never one. */
const CR4 = {
  KEY_LOCKER: 1n << 19n,
  PKE: 1n << 22n,
  CET: 1n << 23n,
  PKS: 1n << 24n,
  UINTR: 1n << 25n,
  LASS: 1n << 27n,
} as const;

/** IA32_ARCH_CAPABILITIES. */
const ARCH = {
  TSX_CTRL: 1n << 7n,
  RRSBA: 1n << 19n,
  XAPIC_DISABLE_STATUS: 1n << 21n,
  /** SSB_NO, BHI_NO, PBRSB_NO: there for a TD that asks for them. */
  ON_REQUEST: (1n << 4n) | (1n << 20n) | (1n << 24n),
  /** MCU control, package controls, energy filtering, FB_CLEAR and its control, overclocking, and what is reserved. */
  HIDDEN: (0b111n << 9n) | (0b111n << 16n) | (0b11n << 22n) | (0x7f_ffff_ffffn << 25n),
} as const;

/** A control MSR: what must be one in the low half, what may be one in the high half. */
function allowed(init: number, variable: number): bigint {
  const mustBeOne = (init & ~variable) >>> 0;
  const mayBeOne = (init | variable) >>> 0;
  return BigInt(mustBeOne) | (BigInt(mayBeOne) << 32n);
}

function withBits(value: number, bits: number, on: boolean): number {
  return on ? value | bits : value & ~bits;
}

/** CR4 bits that software in the TD's L2 VMs may change. @public */
export function writableL2Cr4(platform: PlatformSnapshot, tdcs: ControlStructure): bigint {
  const attributes = tdcs.u64(TDCS.ATTRIBUTES);
  const xfam = tdcs.u64(TDCS.XFAM);
  let mask = CR4_WRITABLE & ~CR4.KEY_LOCKER;
  mask &= ~platform.msrs.get(MODULE_MSR.VMX_CR4_FIXED0)! & platform.msrs.get(MODULE_MSR.VMX_CR4_FIXED1)!;
  if (!hasAny(xfam, XFAM.PKRU)) mask &= ~CR4.PKE;
  if (!hasAll(xfam, XFAM.CET)) mask &= ~CR4.CET;
  if (!hasAny(xfam, XFAM.UINTR)) mask &= ~CR4.UINTR;
  if (!hasAny(attributes, ATTRIBUTES.PKS)) mask &= ~CR4.PKS;
  if (!hasAny(attributes, ATTRIBUTES.LASS)) mask &= ~CR4.LASS;
  return mask;
}

/** Computes the VMX capability MSRs that the TD sees. @public */
export function setVirtualVmxMsrs(platform: PlatformSnapshot, td: TrustDomain): void {
  const { tdcs } = td;
  const { vmxL2 } = platform;
  const attributes = tdcs.u64(TDCS.ATTRIBUTES);
  const profiled = hasAny(attributes, ATTRIBUTES.PERFMON);
  const savesPerf = hasAny(attributes, ATTRIBUTES.PERFMON | ATTRIBUTES.DEBUG);
  const loadsPkrs = hasAny(attributes, ATTRIBUTES.PKS | ATTRIBUTES.DEBUG);
  const monitor = td.cpuidFlag(CPUID_FLAG.MONITOR_MWAIT);
  const waitPause = td.cpuidFlag(CPUID_FLAG.WAITPKG);
  const pconfig = td.cpuidFlag(CPUID_FLAG.PCONFIG);
  const procBased = withBits(
    withBits(vmxL2.procBased, MWAIT_EXITING | MONITOR_EXITING, !monitor),
    RDPMC_EXITING,
    !profiled,
  );
  const secondary = (value: number): number =>
    withBits(withBits(value, WAIT_PAUSE, waitPause), PCONFIG, pconfig);
  const exit = withBits(vmxL2.exit, EXIT_PERF_GLOBAL_CTRL, savesPerf);
  const entry = withBits(
    withBits(vmxL2.entry, ENTRY_PERF_GLOBAL_CTRL, savesPerf),
    ENTRY_LOAD_PKRS,
    loadsPkrs,
  );
  const eptVpid = platform.msrs.get(MODULE_MSR.VMX_EPT_VPID_CAP)!;
  const shadowStacks = hasAny(tdcs.u64(TDCS.XFAM), XFAM.CET) ? EPT_SHADOW_STACK : 0n;
  const cr4 = writableL2Cr4(platform, tdcs);
  const values: Partial<Record<keyof typeof VIRTUAL_MSR, bigint>> = {
    VMX_BASIC,
    VMX_MISC,
    VMX_TRUE_PINBASED_CTLS: allowed(vmxL2.pinBased, 0),
    VMX_TRUE_PROCBASED_CTLS: allowed(procBased, withBits(L1_WRITABLE.procBased, RDPMC_EXITING, profiled)),
    VMX_PROCBASED_CTLS2: allowed(secondary(vmxL2.procBased2), secondary(L1_WRITABLE.procBased2)),
    VMX_PROCBASED_CTLS3: L1_WRITABLE.procBased3,
    VMX_TRUE_EXIT_CTLS: allowed(exit, 0),
    VMX_TRUE_ENTRY_CTLS: allowed(entry, L1_WRITABLE.entry),
    VMX_EPT_VPID_CAP: EPT_VPID_CAP | shadowStacks | (eptVpid & EPT_HLAT_PREFIX),
    VMX_VMFUNC: 0n,
    VMX_CR0_FIXED0: CR0_INIT & ~CR0_VARIABLE,
    VMX_CR0_FIXED1: CR0_INIT | CR0_VARIABLE,
    VMX_CR4_FIXED0: CR4_INIT & ~cr4,
    VMX_CR4_FIXED1: CR4_INIT | cr4,
  };
  for (const [name, value] of Object.entries(values)) {
    setVirtualMsr(tdcs, name as keyof typeof VIRTUAL_MSR, value);
  }
}

/** Computes the TD's IA32_ARCH_CAPABILITIES; false when the configuration asks for what cannot be had. @public */
export function setVirtualArchCapabilities(
  platform: PlatformSnapshot,
  td: TrustDomain,
  params: TdParams,
): boolean {
  const config = params.archCapabilities;
  if (!params.archCapabilitiesConfigured && config !== 0n) return false;
  let value = platform.msrs.get(MODULE_MSR.ARCH_CAPABILITIES)!;
  value &= ~ARCH.ON_REQUEST | config;
  if (!td.cpuidFlag(CPUID_FLAG.TSX)) value &= ~ARCH.TSX_CTRL;
  value = (value & ~ARCH.HIDDEN) | ARCH.XAPIC_DISABLE_STATUS | (config & ARCH.RRSBA);
  if (hasAny(config, ~(ARCH.ON_REQUEST | ARCH.RRSBA))) return false;
  setVirtualMsr(td.tdcs, 'ARCH_CAPABILITIES', value);
  return true;
}

/** A virtual MSR's value. @public */
export function virtualMsr(tdcs: ControlStructure, name: keyof typeof VIRTUAL_MSR): bigint {
  return tdcs.u64(TDCS.VIRT_MSRS + 8 * VIRTUAL_MSR[name]);
}

function setVirtualMsr(tdcs: ControlStructure, name: keyof typeof VIRTUAL_MSR, value: bigint): void {
  tdcs.setU64(TDCS.VIRT_MSRS + 8 * VIRTUAL_MSR[name], value);
}
