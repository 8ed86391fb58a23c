/** MSRs that the module answers itself, by address (docs/rules/guest.md). */
import { MODULE_MSR } from '../platform-msrs.ts';
import { ATTRIBUTES, hasAny, TD_CTLS } from '../td/features.ts';
import { CPUID_FLAG, TDCS, TDVPS } from '../td/layout.ts';
import { storeMiscEnable } from '../td/misc-enable.ts';
import { type VIRTUAL_MSR, virtualMsr } from '../td/virtual-msrs.ts';
import { VMCS } from '../td/vmcs.ts';
import { type Refusal, VE_CATEGORY } from './injection.ts';
import { PERF_EVENT_SELECTS, readEventSelect, writeEventSelect } from './perf-events.ts';
import type { RunningVcpu } from './running-vcpu.ts';

/**
 * Answers RDMSR: the value, a refusal, `unchanged` to leave the registers as they are, or undefined where the MSR's row
 * in the policy table decides.
 * @internal
 */
export type MsrReader = (vcpu: RunningVcpu, msr: number) => bigint | Refusal | 'unchanged' | undefined;
/** Answers WRMSR. @internal */
export type MsrWriter = (vcpu: RunningVcpu, value: bigint, msr: number) => 'done' | Refusal;

const MSR = {
  SMI_COUNT: 0x34,
  FEATURE_CONTROL: 0x3a,
  PPIN_CTL: 0x4e,
  BIOS_UPDT_TRIG: 0x79,
  BIOS_SIGN_ID: 0x8b,
  PLATFORM_INFO: 0xce,
  FEATURE_ENABLES: 0x140,
  DEBUGCTL: 0x1d9,
  X2APIC_APICID: 0x802,
  XSS: 0xda0,
  EFER: 0xc000_0080,
} as const;
const VMX_FIRST = MODULE_MSR.VMX_BASIC;
const VMX_LAST = MODULE_MSR.VMX_PROCBASED_CTLS3;
const VMX_VMFUNC = 0x491;

/** VMX capabilities that a TD may know: those of its L2 VMs. */
const VIRTUAL_VMX: ReadonlyMap<number, keyof typeof VIRTUAL_MSR> = new Map([
  [MODULE_MSR.VMX_BASIC, 'VMX_BASIC'],
  [MODULE_MSR.VMX_MISC, 'VMX_MISC'],
  [MODULE_MSR.VMX_CR0_FIXED0, 'VMX_CR0_FIXED0'],
  [MODULE_MSR.VMX_CR0_FIXED1, 'VMX_CR0_FIXED1'],
  [MODULE_MSR.VMX_CR4_FIXED0, 'VMX_CR4_FIXED0'],
  [MODULE_MSR.VMX_CR4_FIXED1, 'VMX_CR4_FIXED1'],
  [MODULE_MSR.VMX_PROCBASED_CTLS2, 'VMX_PROCBASED_CTLS2'],
  [MODULE_MSR.VMX_EPT_VPID_CAP, 'VMX_EPT_VPID_CAP'],
  [MODULE_MSR.VMX_TRUE_PINBASED_CTLS, 'VMX_TRUE_PINBASED_CTLS'],
  [MODULE_MSR.VMX_TRUE_PROCBASED_CTLS, 'VMX_TRUE_PROCBASED_CTLS'],
  [MODULE_MSR.VMX_TRUE_EXIT_CTLS, 'VMX_TRUE_EXIT_CTLS'],
  [MODULE_MSR.VMX_TRUE_ENTRY_CTLS, 'VMX_TRUE_ENTRY_CTLS'],
  [VMX_VMFUNC, 'VMX_VMFUNC'],
  [MODULE_MSR.VMX_PROCBASED_CTLS3, 'VMX_PROCBASED_CTLS3'],
]);

const LOCKED = 1n;
const LEGACY_XAPIC_DISABLED = 1n;
const PEBS_OUTPUT_PT = 1n << 16n;
const EFER = { SCE: 1n << 0n, LMA: 1n << 10n } as const;
const RFLAGS_TF = 1n << 8n;
const PENDING_DEBUG_BS = 1n << 14n;

const DEBUGCTL = {
  BTF: 1n << 1n,
  TR: 1n << 6n,
  BTS: 1n << 7n,
  UNCORE_PMI: 1n << 13n,
  FREEZE_WHILE_SMM: 1n << 14n,
  RTM: 1n << 15n,
  /** Bits 5:3 and 63:16. */
  RESERVED: 0xffff_ffff_ffff_0038n,
} as const;

/** Only a TD that reduces #VEs gets the answer of `rule`. */
function whenReduced<T>(vcpu: RunningVcpu, rule: () => T): T | Refusal {
  return vcpu.hasControl(TD_CTLS.REDUCE_VE) ? rule() : VE_CATEGORY.CONFIG_PARAVIRT;
}

function fixed(value: bigint): MsrReader {
  return (vcpu) => whenReduced(vcpu, () => value);
}

/** @internal */
export const MSR_READERS: ReadonlyMap<number, MsrReader> = new Map<number, MsrReader>([
  ...vmxRange((): MsrReader => readVmx),
  ...PERF_EVENT_SELECTS.map((msr): [number, MsrReader] => [msr, readEventSelect]),
  [MSR.SMI_COUNT, (vcpu) => whenReduced(vcpu, () => vcpu.tdvps.u64(TDVPS.MSR_SMI_COUNT))],
  [MSR.FEATURE_CONTROL, fixed(LOCKED)],
  [MSR.PPIN_CTL, fixed(LOCKED)],
  [MSR.BIOS_SIGN_ID, fixed(0xffff_ffffn)],
  [MSR.PLATFORM_INFO, fixed(0n)],
  [MSR.FEATURE_ENABLES, fixed(0n)],
  [
    MODULE_MSR.XAPIC_DISABLE_STATUS,
    ({ module }) => (module.platform!.earlyStepping ? undefined : LEGACY_XAPIC_DISABLED),
  ],
  [
    MODULE_MSR.ARCH_CAPABILITIES,
    ({ module, tdcs }) =>
      module.platform!.earlyStepping ? 'unchanged' : virtualMsr(tdcs, 'ARCH_CAPABILITIES'),
  ],
  [MODULE_MSR.MISC_ENABLE, ({ tdvps }) => tdvps.u64(TDVPS.IA32_MISC_ENABLE)],
  [MSR.DEBUGCTL, ({ vmcs }) => vmcs.read(VMCS.GUEST_DEBUGCTL) & ~DEBUGCTL.UNCORE_PMI],
  [MODULE_MSR.PERF_CAPABILITIES, readPerfCapabilities],
  [MSR.X2APIC_APICID, readX2ApicId],
]);

/** @internal */
export const MSR_WRITERS: ReadonlyMap<number, MsrWriter> = new Map<number, MsrWriter>([
  ...vmxRange((): MsrWriter => () => 'gp'),
  ...PERF_EVENT_SELECTS.map((msr): [number, MsrWriter] => [msr, writeEventSelect]),
  [MSR.SMI_COUNT, writeSmiCount],
  [MSR.BIOS_UPDT_TRIG, (vcpu) => whenReduced(vcpu, () => 'done')],
  [MSR.BIOS_SIGN_ID, (vcpu) => whenReduced(vcpu, () => 'done')],
  [MSR.FEATURE_ENABLES, (vcpu, value) => whenReduced(vcpu, () => (value === 0n ? 'done' : 'gp'))],
  [MODULE_MSR.MISC_ENABLE, (vcpu, value) => whenReduced(vcpu, () => writeMiscEnable(vcpu, value))],
  [MSR.DEBUGCTL, writeDebugctl],
  [MSR.XSS, writeXss],
  [MSR.EFER, writeEfer],
]);

function vmxRange<T>(rule: () => T): [number, T][] {
  return Array.from({ length: VMX_LAST - VMX_FIRST + 1 }, (_, i) => [VMX_FIRST + i, rule()]);
}

function readVmx(vcpu: RunningVcpu, msr: number): bigint | Refusal {
  const name = VIRTUAL_VMX.get(msr);
  return name === undefined ? whenReduced<bigint | Refusal>(vcpu, () => 'gp') : virtualMsr(vcpu.tdcs, name);
}

function readPerfCapabilities(vcpu: RunningVcpu): bigint {
  if (!vcpu.hasAttribute(ATTRIBUTES.PERFMON)) return 0n;
  return vcpu.module.platform!.msrs.get(MODULE_MSR.PERF_CAPABILITIES)! & ~PEBS_OUTPUT_PT;
}

function readX2ApicId(vcpu: RunningVcpu): bigint | Refusal {
  if (!vcpu.hasControl(TD_CTLS.ENUM_TOPOLOGY)) return VE_CATEGORY.CONFIG_PARAVIRT;
  return BigInt(vcpu.tdcs.u32(TDCS.X2APIC_IDS + 4 * vcpu.tdvps.u32(TDVPS.VCPU_INDEX)));
}

function writeSmiCount(vcpu: RunningVcpu, value: bigint): 'done' | Refusal {
  return whenReduced(vcpu, () => {
    vcpu.tdvps.setU64(TDVPS.MSR_SMI_COUNT, value);
    return 'done';
  });
}

function writeMiscEnable({ td, tdvps }: RunningVcpu, value: bigint): 'done' | Refusal {
  const refused = storeMiscEnable(td, tdvps, value);
  if (refused === undefined) return 'done';
  return refused === 'reserved' ? 'gp' : VE_CATEGORY.UNSUPPORTED_FEATURE;
}

function writeXss({ module, tdcs, tdvps }: RunningVcpu, value: bigint): 'done' | Refusal {
  const allowed = BigInt(module.platform!.xssMask) & tdcs.u64(TDCS.XFAM);
  if (hasAny(value, ~allowed)) return 'gp';
  tdvps.setU64(TDVPS.IA32_XSS, value);
  return 'done';
}

function writeDebugctl(vcpu: RunningVcpu, written: bigint): 'done' | Refusal {
  const { vmcs, td } = vcpu;
  const present = vmcs.read(VMCS.GUEST_DEBUGCTL);
  if (hasAny(written, DEBUGCTL.RESERVED)) return 'gp';
  if (hasAny(written, DEBUGCTL.TR) && !hasAny(written, DEBUGCTL.BTS)) return VE_CATEGORY.UNSUPPORTED_FEATURE;
  if (hasAny(written, DEBUGCTL.FREEZE_WHILE_SMM) && !vcpu.hasAttribute(ATTRIBUTES.PERFMON)) return 'gp';
  if (hasAny(written, DEBUGCTL.RTM) && !td.cpuidFlag(CPUID_FLAG.TSX)) return 'gp';
  vmcs.write(VMCS.GUEST_DEBUGCTL, (written & ~DEBUGCTL.UNCORE_PMI) | (present & DEBUGCTL.UNCORE_PMI));
  const switchesStepping = hasAny(written ^ present, DEBUGCTL.BTF);
  if (switchesStepping && hasAny(vmcs.read(VMCS.GUEST_RFLAGS), RFLAGS_TF)) {
    const pending = vmcs.read(VMCS.GUEST_PENDING_DEBUG) & ~PENDING_DEBUG_BS;
    const steps = hasAny(present, DEBUGCTL.BTF);
    vmcs.write(VMCS.GUEST_PENDING_DEBUG, steps ? pending | PENDING_DEBUG_BS : pending);
  }
  return 'done';
}

/** Only SYSCALL can be switched; LMA is read-only. */
function writeEfer({ vmcs }: RunningVcpu, written: bigint): 'done' | Refusal {
  const present = vmcs.read(VMCS.GUEST_EFER);
  const value = (written & ~EFER.LMA) | (present & EFER.LMA);
  if (hasAny(value ^ present, ~EFER.SCE)) return VE_CATEGORY.UNSUPPORTED_FEATURE;
  vmcs.write(VMCS.GUEST_EFER, value);
  return 'done';
}
