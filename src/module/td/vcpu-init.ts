/** The state of a vCPU that VP.INIT leaves outside its VMCS (module facts 10). */
import { CPUID_POLICIES } from '../../abi/cpuid-policy.ts';
import { R8, RBX, RCX, RDX, RSI } from '../../abi/registers.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { PlatformSnapshot } from '../platform.ts';
import { CPUID_LEAF, EAX } from '../platform-cpu-facts.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import type { TdxModule } from '../tdx-module.ts';
import type { ControlStructure } from './control-structure.ts';
import { cpuidIndex, maskedPlatformCpuid } from './cpuid-values.ts';
import { ATTRIBUTES, hasAny, XFAM } from './features.ts';
import { gpaWidth } from './gpa.ts';
import { CPUID_FLAG, LAST_TD_EXIT, NULL_PA, TDCS, TDVPS, VCPU_STATE, XBUFF_XCOMP_BV } from './layout.ts';
import { realSpecCtrl } from './spec-ctrl.ts';
import type { TrustDomain } from './trust-domain.ts';
import { writableL2Cr4 } from './virtual-msrs.ts';

const XCR0_RESET = 1n;
const DR6_RESET = 0xffff_0ff0n;
const FMASK_RESET = 0x2_0200n;
/** XCOMP_BV bit 63: XBUFF has the compacted format. */
const COMPACTED = 1n << 63n;
const NO_DEADLINE = 0xffff_ffff_ffff_ffffn;
const NO_NOTIFICATION_VECTOR = 0xffff;
const ALL = 0xffff_ffff_ffff_ffffn;

/** IA32_MISC_ENABLE bits that a TD sees. */
const MISC = {
  FAST_STRINGS: 1n << 0n,
  PERFMON: 1n << 7n,
  BTS_UNAVAILABLE: 1n << 11n,
  PEBS_UNAVAILABLE: 1n << 12n,
  EST: 1n << 16n,
  MONITOR: 1n << 18n,
} as const;

/** CR0: PE and PG, NE, and what only the module may change. */
const CR0_PE_PG = (1n << 31n) | 1n;
const CR0_NE = 1n << 5n;
/** CR0 bits 63:32, 30, 29, 28:19, 17 and 15:6: reserved, CD and NW. @internal */
export const CR0_HOST_OWNED =
  (0xffff_ffffn << 32n) | (0b11n << 29n) | (0x3ffn << 19n) | (1n << 17n) | 0xffc0n;
const CR4_MCE_VMXE = (1n << 6n) | (1n << 13n);

/** Fills the TDVPS of a fresh vCPU. `argument` becomes its RCX and R8. @internal */
export function initialiseVcpu(
  module: TdxModule,
  lp: LogicalProcessor,
  td: TrustDomain,
  tdvps: ControlStructure,
  argument: bigint,
): void {
  const platform = module.platform!;
  const { tdcs } = td;
  tdvps.setU64(TDVPS.LAST_EXIT_TSC, lp.rdtsc());
  const version = CPUID_POLICIES[cpuidIndex(CPUID_LEAF.VERSION, 0)]!;
  tdvps.setN64(TDVPS.GPRS + 8 * RBX, gpaWidth(tdcs));
  tdvps.setU64(TDVPS.GPRS + 8 * RCX, argument);
  tdvps.setU64(TDVPS.GPRS + 8 * R8, argument);
  tdvps.setN64(TDVPS.GPRS + 8 * RDX, maskedPlatformCpuid(platform, version)[EAX]!);
  tdvps.setN64(TDVPS.GPRS + 8 * RSI, tdvps.u32(TDVPS.VCPU_INDEX));
  tdvps.setU64(TDVPS.XCR0, XCR0_RESET);
  tdvps.setU64(TDVPS.DR6, DR6_RESET);
  tdvps.setU64(TDVPS.IA32_FMASK, FMASK_RESET);
  tdvps.setU64(XBUFF_XCOMP_BV, COMPACTED);
  if (hasAny(tdcs.u64(TDCS.XFAM), XFAM.LBR)) tdvps.setN64(TDVPS.IA32_LBR_DEPTH, platform.maxLbrDepth);
  tdvps.setU8(TDVPS.VCPU_STATE, VCPU_STATE.READY);
  tdvps.setU8(TDVPS.LAST_TD_EXIT, LAST_TD_EXIT.ASYNC_FAULT);
  initialiseShadows(platform, td, tdvps);
  initialiseL2Defaults(platform, td, tdvps);
  if (platform.earlyStepping) return;
  tdvps.setU64(TDVPS.IA32_SPEC_CTRL, realSpecCtrl(platform, td, 0n));
  tdvps.setU64(TDVPS.IA32_MISC_ENABLE, virtualMiscEnable(platform, td));
}

function virtualMiscEnable(platform: PlatformSnapshot, td: TrustDomain): bigint {
  const native = platform.msrs.get(MODULE_MSR.MISC_ENABLE)!;
  const profiled = hasAny(td.tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.PERFMON);
  let value = native & (MISC.FAST_STRINGS | MISC.BTS_UNAVAILABLE);
  if (profiled) value |= MISC.PERFMON;
  else value |= native & MISC.PEBS_UNAVAILABLE;
  if (td.cpuidFlag(CPUID_FLAG.EST)) value |= MISC.EST;
  if (td.cpuidFlag(CPUID_FLAG.MONITOR_MWAIT)) value |= MISC.MONITOR;
  return value;
}

/** What the module remembers of controls that a debugger or the host may change. */
function initialiseShadows(platform: PlatformSnapshot, { tdcs }: TrustDomain, tdvps: ControlStructure): void {
  tdvps.setU64(TDVPS.SHADOW_PID_HPA, NULL_PA);
  tdvps.setU32(TDVPS.SHADOW_PINBASED_EXEC_CTLS, platform.vmx.pinBased);
  tdvps.setU16(TDVPS.SHADOW_POSTED_INT_NOTIFICATION_VECTOR, NO_NOTIFICATION_VECTOR);
  for (let vm = 0; vm <= tdcs.u16(TDCS.NUM_L2_VMS); vm++) {
    const controls = vm === 0 ? platform.vmx : platform.vmxL2;
    tdvps.setU32(TDVPS.SHADOW_PROCBASED_EXEC_CTLS2 + 4 * vm, controls.procBased2);
    tdvps.setU64(TDVPS.SHADOW_SHARED_EPTP + 8 * vm, NULL_PA);
    tdvps.setU64(TDVPS.L2_ENTER_GUEST_STATE_GPA + 8 * vm, NULL_PA);
    tdvps.setU64(TDVPS.L2_ENTER_GUEST_STATE_HPA + 8 * vm, NULL_PA);
    tdvps.setU64(TDVPS.L2_VAPIC_GPA + 8 * vm, NULL_PA);
    tdvps.setU64(TDVPS.L2_VAPIC_HPA + 8 * vm, NULL_PA);
    tdvps.setU64(TDVPS.TSC_DEADLINE + 8 * vm, NO_DEADLINE);
  }
}

/** Control register ownership that L2 VMs start from. */
function initialiseL2Defaults(
  platform: PlatformSnapshot,
  { tdcs }: TrustDomain,
  tdvps: ControlStructure,
): void {
  const cr0Fixed0 = platform.msrs.get(MODULE_MSR.VMX_CR0_FIXED0)!;
  const cr0Fixed1 = platform.msrs.get(MODULE_MSR.VMX_CR0_FIXED1)!;
  const cr4Fixed0 = platform.msrs.get(MODULE_MSR.VMX_CR4_FIXED0)!;
  const cr0Mask = ((cr0Fixed0 | (ALL & ~cr0Fixed1)) & ~CR0_PE_PG) | CR0_NE | CR0_HOST_OWNED;
  tdvps.setU64(TDVPS.BASE_L2_CR0_GUEST_HOST_MASK, cr0Mask);
  tdvps.setU64(TDVPS.BASE_L2_CR0_READ_SHADOW, (cr0Fixed0 & ~CR0_PE_PG) | CR0_NE);
  tdvps.setU64(TDVPS.BASE_L2_CR4_GUEST_HOST_MASK, ALL & ~writableL2Cr4(platform, tdcs));
  tdvps.setU64(TDVPS.BASE_L2_CR4_READ_SHADOW, cr4Fixed0 | CR4_MCE_VMXE);
}
