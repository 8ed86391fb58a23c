/** Model-specific registers that SYS.INIT checks for itself and samples for comparison on every LP. */
import { withOperand } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import type { LogicalProcessor } from '../machine/lp.ts';

/** MSR addresses the module reads (Intel SDM volume 4; 0x98, 0x99, 0xBC, 0xBD: TDX module ABI). @public */
export const MODULE_MSR = {
  TSC_ADJUST: 0x3b,
  MKTME_KEYID_PARTITIONING: 0x87,
  WBINVDP: 0x98,
  WBNOINVDP: 0x99,
  MISC_PACKAGE_CTLS: 0xbc,
  XAPIC_DISABLE_STATUS: 0xbd,
  CORE_CAPABILITIES: 0xcf,
  MTRRCAP: 0xfe,
  ARCH_CAPABILITIES: 0x10a,
  MISC_ENABLE: 0x1a0,
  DEBUGCTL: 0x1d9,
  SMRR_BASE: 0x1f2,
  SMRR_MASK: 0x1f3,
  SMRR2_BASE: 0x1f6,
  SMRR2_MASK: 0x1f7,
  PERF_CAPABILITIES: 0x345,
  VMX_BASIC: 0x480,
  VMX_MISC: 0x485,
  VMX_CR0_FIXED0: 0x486,
  VMX_CR0_FIXED1: 0x487,
  VMX_CR4_FIXED0: 0x488,
  VMX_CR4_FIXED1: 0x489,
  VMX_PROCBASED_CTLS2: 0x48b,
  VMX_EPT_VPID_CAP: 0x48c,
  VMX_TRUE_PINBASED_CTLS: 0x48d,
  VMX_TRUE_PROCBASED_CTLS: 0x48e,
  VMX_TRUE_EXIT_CTLS: 0x48f,
  VMX_TRUE_ENTRY_CTLS: 0x490,
  VMX_PROCBASED_CTLS3: 0x492,
  TME_CAPABILITY: 0x981,
  TME_ACTIVATE: 0x982,
  SEAMRR_BASE: 0x1400,
  SEAMRR_MASK: 0x1401,
} as const;

/** MISC_ENABLE bit 22: CPUID reports at most leaf 2. @public */
export const LIMIT_CPUID_MAXVAL = 1n << 22n;

/** Compared before CPUID, in this order. @internal */
export const COMPARED_BEFORE_CPUID: readonly number[] = [
  MODULE_MSR.CORE_CAPABILITIES,
  MODULE_MSR.ARCH_CAPABILITIES,
  MODULE_MSR.MISC_PACKAGE_CTLS,
  MODULE_MSR.XAPIC_DISABLE_STATUS,
];

/** Compared after CPUID, in this order. @internal */
export const COMPARED_AFTER_CPUID: readonly number[] = [
  MODULE_MSR.TSC_ADJUST,
  MODULE_MSR.MTRRCAP,
  MODULE_MSR.SMRR_BASE,
  MODULE_MSR.SMRR_MASK,
  MODULE_MSR.SMRR2_BASE,
  MODULE_MSR.SMRR2_MASK,
  MODULE_MSR.VMX_BASIC,
  MODULE_MSR.VMX_TRUE_PINBASED_CTLS,
  MODULE_MSR.VMX_TRUE_PROCBASED_CTLS,
  MODULE_MSR.VMX_PROCBASED_CTLS2,
  MODULE_MSR.VMX_PROCBASED_CTLS3,
  MODULE_MSR.VMX_TRUE_EXIT_CTLS,
  MODULE_MSR.VMX_TRUE_ENTRY_CTLS,
  MODULE_MSR.VMX_MISC,
  MODULE_MSR.VMX_EPT_VPID_CAP,
  MODULE_MSR.VMX_CR0_FIXED0,
  MODULE_MSR.VMX_CR0_FIXED1,
  MODULE_MSR.VMX_CR4_FIXED0,
  MODULE_MSR.VMX_CR4_FIXED1,
  MODULE_MSR.PERF_CAPABILITIES,
  MODULE_MSR.TME_CAPABILITY,
  MODULE_MSR.TME_ACTIVATE,
  MODULE_MSR.MKTME_KEYID_PARTITIONING,
  MODULE_MSR.WBINVDP,
  MODULE_MSR.WBNOINVDP,
];

/** What one MSR must hold for the module to run. @internal */
export interface MsrRequirement {
  readonly address: number;
  /** Bits that must be one. */
  readonly ones?: bigint;
  /** Bits that must be zero. */
  readonly zeros?: bigint;
  /** A field with a limit. */
  readonly field?: {
    readonly high: number;
    readonly low: number;
    readonly min?: number;
    readonly max?: number;
  };
}

/** A mask with the given bits set. @internal */
export function bits(...positions: readonly number[]): bigint {
  return positions.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
}

/** ARCH_CAPABILITIES: the CPU has none of the old vulnerabilities and the controls the module uses. */
const ARCH_CAPABILITIES: MsrRequirement = {
  address: MODULE_MSR.ARCH_CAPABILITIES,
  // RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, MISC_PACKAGE_CTLS,
  // ENERGY_FILTERING_CTL, DOITM, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, XAPIC_DISABLE_STATUS
  ones: bits(0, 1, 3, 5, 6, 8, 10, 11, 12, 13, 14, 15, 21),
  // RSBA, FB_CLEAR_CTRL
  zeros: bits(2, 18),
};

/** Legacy xAPIC mode is locked out. */
const XAPIC_DISABLED: MsrRequirement = {
  address: MODULE_MSR.XAPIC_DISABLE_STATUS,
  ones: 1n,
  zeros: ~1n & 0xffff_ffff_ffff_ffffn,
};

/** Energy filtering is on. */
const ENERGY_FILTERING: MsrRequirement = { address: MODULE_MSR.MISC_PACKAGE_CTLS, ones: 1n };

/** Freeze while SMM, and full-width writes of counters. */
const PERF_CAPABILITIES: MsrRequirement = { address: MODULE_MSR.PERF_CAPABILITIES, ones: bits(12, 13) };

/** Performance monitoring available, branch trace store not unavailable. @internal */
export const MISC_ENABLE: MsrRequirement = {
  address: MODULE_MSR.MISC_ENABLE,
  ones: bits(7),
  zeros: bits(11),
};

/** The MSRs of one LP, remembered as they are read. @internal */
export class MsrSample {
  readonly values = new Map<number, bigint>();
  readonly lp: LogicalProcessor;

  constructor(lp: LogicalProcessor) {
    this.lp = lp;
  }

  /** Reads an MSR and keeps its value for the comparison with other LPs. */
  read(address: number): bigint {
    const value = this.lp.rdmsr(address);
    this.values.set(address, value);
    return value;
  }
}

/** @internal */
export function incorrectMsr(address: number): bigint {
  return withOperand(STATUS.TDX_INCORRECT_MSR_VALUE, address);
}

/** @internal */
export function meets(value: bigint, { ones = 0n, zeros = 0n, field }: MsrRequirement): boolean {
  if ((value & ones) !== ones || (value & zeros) !== 0n) return false;
  if (field === undefined) return true;
  const { high, low, min = 0, max = Number.POSITIVE_INFINITY } = field;
  const held = Number((value >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));
  return held >= min && held <= max;
}

/** Samples the MSRs in order: success, or INCORRECT_MSR_VALUE with the first that falls short. @internal */
export function sampleRequired(sample: MsrSample, requirements: readonly MsrRequirement[]): bigint {
  for (const requirement of requirements) {
    if (!meets(sample.read(requirement.address), requirement)) return incorrectMsr(requirement.address);
  }
  return STATUS.TDX_SUCCESS;
}

/** The checks that come before CPUID. @internal */
export function sampleCapabilities(sample: MsrSample, earlyStepping: boolean): bigint {
  sample.read(MODULE_MSR.CORE_CAPABILITIES);
  const status = sampleRequired(sample, [
    ARCH_CAPABILITIES,
    ...(earlyStepping ? [] : [XAPIC_DISABLED]),
    ENERGY_FILTERING,
    PERF_CAPABILITIES,
  ]);
  sample.read(MODULE_MSR.TSC_ADJUST);
  return status;
}

/** INCONSISTENT_MSR with the first MSR of the list that reads differently on `lp`; those never sampled are skipped. @internal */
export function compareMsrs(
  lp: LogicalProcessor,
  sampled: ReadonlyMap<number, bigint>,
  list: readonly number[],
): bigint {
  for (const address of list) {
    const expected = sampled.get(address);
    if (expected === undefined) continue;
    if (lp.rdmsr(address) !== expected) return withOperand(STATUS.TDX_INCONSISTENT_MSR, address);
  }
  return STATUS.TDX_SUCCESS;
}
