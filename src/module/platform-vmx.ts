/** VMX capabilities: whether the CPU allows every control that the module sets in the VMCS of a TD and of an L2 VM. */
import { STATUS } from '../abi/status-codes.ts';
import { fatal } from './fatal.ts';
import type { CpuFeatures, VmxControls } from './platform.ts';
import {
  bits,
  incorrectMsr,
  MODULE_MSR,
  type MsrRequirement,
  type MsrSample,
  sampleRequired,
} from './platform-msrs.ts';

/** One control field: the value the module starts with, the bits it may change later, and those it does not know. */
interface ControlField {
  readonly init: number;
  readonly variable: number;
  readonly unknown: number;
}

interface ControlSet {
  readonly pinBased: ControlField;
  readonly procBased: ControlField;
  readonly procBased2: ControlField;
  /** Tertiary controls that may be set later; all of them start as zero. */
  readonly procBased3Variable: bigint;
  readonly exit: ControlField;
  readonly entry: ControlField;
}

/** VMCS of a TD (facts: release 1.5.25). */
const L1_CONTROLS: ControlSet = {
  pinBased: { init: 0x29, variable: 0x80, unknown: 0xffffff16 },
  procBased: { init: 0x91220088, variable: 0x20400c00, unknown: 0x04046173 },
  procBased2: { init: 0x133cb3fa, variable: 0xcc000400, unknown: 0 },
  procBased3Variable: 0xa0n,
  exit: { init: 0x1f3c9204, variable: 0x40000000, unknown: 0x00036dfb },
  entry: { init: 0x003ee004, variable: 0x00400200, unknown: 0xff8011fb },
};

/** VMCS of an L2 VM. */
const L2_CONTROLS: ControlSet = {
  pinBased: { init: 0x29, variable: 0, unknown: 0xffffff16 },
  procBased: { init: 0x91220088, variable: 0x68d99e04, unknown: 0x04046173 },
  procBased2: { init: 0x1338b3fa, variable: 0xcc513e0c, unknown: 0 },
  procBased3Variable: 0xaen,
  exit: { init: 0x1f3c9204, variable: 0x40000000, unknown: 0x00036dfb },
  entry: { init: 0x003ee004, variable: 0x00400200, unknown: 0xff8011fb },
};

/** Secondary controls: user wait and pause, ENCLV exiting. */
const WAIT_PAUSE = 1 << 26;
const ENCLV_EXITING = 1 << 28;
/** Tertiary control: virtual IA32_SPEC_CTRL, used only where the CPU has it. */
const VIRTUAL_SPEC_CTRL = 1n << 7n;

/** CR0.PE and CR0.PG, which unrestricted guests may clear whatever the fixed bits say. */
const PE_PG = bits(0, 31);
/** CR0 at TD entry (PE, NE) and CR4 (MCE, VMXE). */
const CR0_INIT = bits(0, 5);
const CR4_INIT = bits(6, 13);
/** CR0 bits that an L2 VM changes. */
const CR0_L2_VARIABLE = 0x8005001fn;
const ALL = 0xffff_ffff_ffff_ffffn;

const VMX_BASIC: MsrRequirement = {
  address: MODULE_MSR.VMX_BASIC,
  // exit information on INS and OUTS, TRUE control MSRs
  ones: bits(54, 55),
  // VMCS region in bytes
  field: { high: 44, low: 32, max: 4096 },
};

const AFTER_CONTROLS: readonly MsrRequirement[] = [
  {
    address: MODULE_MSR.VMX_MISC,
    // unrestricted guest, HLT and shutdown activity, processor trace in VMX, VMWRITE to any field
    ones: bits(5, 6, 7, 14, 29),
    // CR3 targets
    field: { high: 24, low: 16, min: 4 },
  },
  { address: MODULE_MSR.VMX_EPT_VPID_CAP, ones: 0x101_0633_4041n },
  { address: MODULE_MSR.VMX_CR0_FIXED0, zeros: ALL & ~(CR0_INIT | PE_PG) },
  { address: MODULE_MSR.VMX_CR0_FIXED1, ones: CR0_INIT },
  { address: MODULE_MSR.VMX_CR4_FIXED0, zeros: ALL & ~CR4_INIT },
  { address: MODULE_MSR.VMX_CR4_FIXED1, ones: CR4_INIT },
];

/** Samples and checks the VMX MSRs: the controls to use, or INCORRECT_MSR_VALUE with the first MSR that forbids one. @internal */
export function sampleVmx(
  sample: MsrSample,
  features: CpuFeatures,
): { readonly vmx: VmxControls; readonly vmxL2: VmxControls } | bigint {
  const basic = sampleRequired(sample, [VMX_BASIC]);
  if (basic !== STATUS.TDX_SUCCESS) return basic;
  const vmx = fitControls(sample, L1_CONTROLS, features);
  if (typeof vmx === 'bigint') return vmx;
  const rest = sampleRequired(sample, AFTER_CONTROLS);
  if (rest !== STATUS.TDX_SUCCESS) return rest;
  const vmxL2 = fitControls(sample, L2_CONTROLS, features);
  if (typeof vmxL2 === 'bigint') return vmxL2;
  // An L2 VM starts with the CR4 of a TD, which is checked above; its CR0 has more bits that change.
  const must = sample.values.get(MODULE_MSR.VMX_CR0_FIXED0)! & ~PE_PG;
  const may = sample.values.get(MODULE_MSR.VMX_CR0_FIXED1)!;
  if ((must & ~may) !== 0n) fatal('CR0 has bits that can be neither zero nor one');
  if (((must | (ALL & ~may)) & CR0_L2_VARIABLE) !== 0n) return incorrectMsr(MODULE_MSR.VMX_CR0_FIXED0);
  return { vmx, vmxL2 };
}

function fitControls(sample: MsrSample, set: ControlSet, features: CpuFeatures): VmxControls | bigint {
  const pinBased = fitField(sample, MODULE_MSR.VMX_TRUE_PINBASED_CTLS, set.pinBased);
  if (pinBased === undefined) return incorrectMsr(MODULE_MSR.VMX_TRUE_PINBASED_CTLS);
  const procBased = fitField(sample, MODULE_MSR.VMX_TRUE_PROCBASED_CTLS, set.procBased);
  if (procBased === undefined) return incorrectMsr(MODULE_MSR.VMX_TRUE_PROCBASED_CTLS);
  const secondary = secondaryField(set.procBased2, sample.read(MODULE_MSR.VMX_PROCBASED_CTLS2), features);
  const procBased2 = fitField(sample, MODULE_MSR.VMX_PROCBASED_CTLS2, secondary);
  if (procBased2 === undefined) return incorrectMsr(MODULE_MSR.VMX_PROCBASED_CTLS2);
  if (!tertiaryFits(sample.read(MODULE_MSR.VMX_PROCBASED_CTLS3), set.procBased3Variable, features)) {
    return incorrectMsr(MODULE_MSR.VMX_PROCBASED_CTLS3);
  }
  const exit = fitField(sample, MODULE_MSR.VMX_TRUE_EXIT_CTLS, set.exit);
  if (exit === undefined) return incorrectMsr(MODULE_MSR.VMX_TRUE_EXIT_CTLS);
  const entry = fitField(sample, MODULE_MSR.VMX_TRUE_ENTRY_CTLS, set.entry);
  if (entry === undefined) return incorrectMsr(MODULE_MSR.VMX_TRUE_ENTRY_CTLS);
  return { pinBased, procBased, procBased2, exit, entry };
}

/** User wait and pause follows WAITPKG; ENCLV exiting is asked for only where the CPU offers it. */
function secondaryField(field: ControlField, msr: bigint, features: CpuFeatures): ControlField {
  const allowed1 = Number(msr >> 32n);
  let init = features.waitpkg ? field.init | WAIT_PAUSE : field.init & ~WAIT_PAUSE;
  if ((allowed1 & ENCLV_EXITING) === 0) init &= ~ENCLV_EXITING;
  return { ...field, init };
}

/** The MSR tells only which bits may be one. A CPU with DDPD must be able to virtualise IA32_SPEC_CTRL. */
function tertiaryFits(allowed1: bigint, variable: bigint, features: CpuFeatures): boolean {
  const needed = features.ddpd ? variable | VIRTUAL_SPEC_CTRL : variable & ~VIRTUAL_SPEC_CTRL;
  return (allowed1 & needed) === needed;
}

/**
 * The field's value with the bits the CPU forces to one, or undefined when the CPU forbids it. Low half of the MSR:
 * bits that must be one. High half: bits that may be one.
 */
function fitField(
  sample: MsrSample,
  address: number,
  { init, variable, unknown }: ControlField,
): number | undefined {
  const msr = sample.read(address);
  const must = Number(msr & 0xffff_ffffn);
  const mustNot = ~Number(msr >> 32n);
  if ((must & mustNot) !== 0) fatal(`MSR 0x${address.toString(16)} has controls that are neither on nor off`);
  if ((must & ~(init | unknown)) !== 0) return undefined;
  if ((mustNot & init) !== 0) return undefined;
  if (((must | mustNot) & variable) !== 0) return undefined;
  return (init | must) >>> 0;
}
