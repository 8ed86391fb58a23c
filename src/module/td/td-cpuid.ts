/**
 * What a TD sees of CPUID, computed once by MNG.INIT (module facts 11): the platform's values, minus what the policy
 * table fixes, with what TD_PARAMS configures, masked by the TD's other features.
 */
import {
  CPUID_FIXED0_BITMAP,
  CPUID_POLICIES,
  CPUID_XFAM_MASKS,
  type CpuidPolicy,
  type CpuidQuad,
} from '../../abi/cpuid-policy.ts';
import { OPERAND } from '../../abi/operands.ts';
import { RCX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { NO_SUBLEAF, type PlatformSnapshot } from '../platform.ts';
import { CPUID_LEAF, EAX, EBX, ECX, EDX } from '../platform-cpu-facts.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import type { TdxModule } from '../tdx-module.ts';
import type { ControlStructure } from './control-structure.ts';
import { cpuidIndex, maskedPlatformCpuid, storeCpuid } from './cpuid-values.ts';
import { ATTRIBUTES, CONFIG_FLAGS, hasAll, hasAny, XFAM } from './features.ts';
import { gpaWidth } from './gpa.ts';
import { CPUID_FLAG, TDCS } from './layout.ts';
import type { TdParams } from './td-params.ts';
import { computeTopology } from './td-topology.ts';
import type { TrustDomain } from './trust-domain.ts';

const ZERO: CpuidQuad = [0, 0, 0, 0];
/** Leaves in TD_PARAMS.CPUID_CONFIG. */
const CONFIGURABLE_LEAVES = CPUID_POLICIES.filter((policy) => policy.configIndex !== undefined).length;
const OPERAND_INVALID_CPUID = withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.CPUID_CONFIG);
/** IA32_ARCH_CAPABILITIES bit 7: IA32_TSX_CTRL exists. */
const TSX_CTRL = 1n << 7n;
const STEPPING_MASK = 0xf;
/** Width of a linear address with 4- and with 5-level paging. */
const LINEAR_BITS = [48, 57] as const;
/** Narrowest MAXPA that a TD may be configured with (module facts 0). */
const MIN_VIRTUAL_MAXPA = 45;
const CACHE_SUBLEAVES = 4;

/** What a leaf's own rule works on. */
interface LeafContext {
  readonly module: TdxModule;
  readonly platform: PlatformSnapshot;
  readonly lp: LogicalProcessor;
  readonly tdcs: ControlStructure;
  readonly subleaf: number;
  /** EAX, EBX, ECX, EDX as computed so far. */
  readonly values: Uint32Array;
  readonly attributes: bigint;
  readonly xfam: bigint;
}

/** Changes the values of one leaf, and returns TDX_SUCCESS, or the status when the configuration is not possible. */
type LeafRule = (context: LeafContext) => bigint;

/** Computes and stores every leaf. Returns TDX_SUCCESS, or the status, with the leaf in RCX where it is at fault. @public */
export function configureCpuid(
  module: TdxModule,
  lp: LogicalProcessor,
  td: TrustDomain,
  params: TdParams,
): bigint {
  const platform = module.platform!;
  const { tdcs } = td;
  const attributes = tdcs.u64(TDCS.ATTRIBUTES);
  const xfam = tdcs.u64(TDCS.XFAM);
  tdcs.setU64(TDCS.CPUID_FIXED0_BITMAP, CPUID_FIXED0_BITMAP);
  for (const [index, policy] of CPUID_POLICIES.entries()) {
    const { leaf, subleaf = NO_SUBLEAF } = policy;
    const values = maskedPlatformCpuid(platform, policy);
    if (!applyConfig(policy, values, params)) return blame(lp, leaf, subleaf);
    const context = { module, platform, lp, tdcs, subleaf, values, attributes, xfam };
    const status = LEAF_RULES[leaf]?.(context) ?? STATUS.TDX_SUCCESS;
    if (status === WRONG_LEAF) return blame(lp, leaf, subleaf);
    if (status !== STATUS.TDX_SUCCESS) return status;
    storeCpuid(tdcs, index, values);
    tdcs.setU8(TDCS.CPUID_VALID + index, 1);
  }
  const topology = computeTopology(platform, tdcs);
  if (topology !== STATUS.TDX_SUCCESS) return topology;
  // Both last until a vCPU is initialised without an x2APIC id.
  tdcs.setFlag(TDCS.TOPOLOGY_ENUM_CONFIGURED, true);
  tdcs.setFlag(TDCS.VE_REDUCTION_VALID, true);
  if (!params.isTailZero(CONFIGURABLE_LEAVES)) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  return STATUS.TDX_SUCCESS;
}

/** Puts what TD_PARAMS says of a leaf into `values`; false when it sets bits that are not configurable. */
function applyConfig(policy: CpuidPolicy, values: Uint32Array, params: TdParams): boolean {
  const { configIndex, configDirect = ZERO, allowDirect = ZERO } = policy;
  if (configIndex === undefined) return true;
  const config = params.cpuidConfig(configIndex);
  for (let i = 0; i < 4; i++) {
    if ((config[i]! & ~(configDirect[i]! | allowDirect[i]!)) !== 0) return false;
    const direct = (values[i]! & ~configDirect[i]!) | (config[i]! & configDirect[i]!);
    values[i] = direct & (config[i]! | ~allowDirect[i]!);
  }
  return true;
}

/** Stands for "this leaf is at fault": its number goes to RCX. */
const WRONG_LEAF = -1n;

function blame(lp: LogicalProcessor, leaf: number, subleaf: number): bigint {
  lp.regs.d[2 * RCX] = leaf;
  lp.regs.d[2 * RCX + 1] = subleaf;
  return OPERAND_INVALID_CPUID;
}

function bit(value: number, position: number): boolean {
  return ((value >>> position) & 1) === 1;
}

function assignBit(values: Uint32Array, register: number, position: number, on: boolean): void {
  const mask = 1 << position;
  values[register] = on ? values[register]! | mask : values[register]! & ~mask;
}

/** Notes what of the TD's CPUID decides how its other events are handled. @internal */
export function setFlags(
  tdcs: ControlStructure,
  flags: Partial<Record<keyof typeof CPUID_FLAG, boolean>>,
): void {
  for (const [name, on] of Object.entries(flags)) {
    tdcs.setFlag(TDCS.CPUID_FLAGS + CPUID_FLAG[name as keyof typeof CPUID_FLAG], on);
  }
}

function clearUnless(condition: boolean, { values }: LeafContext): bigint {
  if (!condition) values.fill(0);
  return STATUS.TDX_SUCCESS;
}

/** Clears what belongs to state components that the TD does not have. */
function applyXfam({ values, xfam }: LeafContext, masks: keyof typeof CPUID_XFAM_MASKS): void {
  for (const [component, mask] of CPUID_XFAM_MASKS[masks]) {
    if (hasAny(xfam, 1n << BigInt(component))) continue;
    for (let i = 0; i < 4; i++) values[i]! &= ~mask[i]!;
  }
}

function versionLeaf(context: LeafContext): bigint {
  const { module, platform, tdcs, values, attributes } = context;
  if (values[EAX] === 0) values[EAX] = platform.fms;
  else if (hasAny(attributes, ATTRIBUTES.MIGRATABLE)) {
    if (!isFmsAllowed(module.release.knownFms, platform.fms, values[EAX]!)) return WRONG_LEAF;
  } else if (values[EAX] !== platform.fms) return WRONG_LEAF;
  applyXfam(context, '1');
  const [, , ecx, edx] = values as unknown as CpuidQuad;
  setFlags(tdcs, {
    MONITOR_MWAIT: bit(ecx, 3),
    DCA: bit(ecx, 18),
    TSC_DEADLINE: bit(ecx, 24),
    EST: bit(ecx, 7),
    TM2: bit(ecx, 8),
    XTPR_UPDATE: bit(ecx, 14),
    NO_MCE: false,
    NO_MCA: false,
    NO_MTRR: false,
    ACPI: bit(edx, 22),
  });
  return STATUS.TDX_SUCCESS;
}

/** A migratable TD may claim to run on any known model from the platform's on, with no later stepping. */
function isFmsAllowed(known: readonly number[], platform: number, fms: number): boolean {
  const sameModel = (a: number, b: number): boolean => (a & ~STEPPING_MASK) === (b & ~STEPPING_MASK);
  const stepping = fms & STEPPING_MASK;
  if (sameModel(platform, fms) && stepping > (platform & STEPPING_MASK)) return false;
  const from = known.findIndex((entry) => sameModel(platform, entry));
  if (from < 0) return false;
  const entry = known.slice(from).find((candidate) => sameModel(candidate, fms));
  return entry !== undefined && stepping <= (entry & STEPPING_MASK);
}

/** The TD's creator describes caches as it likes; the native values are kept for TDs that ask for them. */
function cacheLeaf({ platform, tdcs, subleaf }: LeafContext): bigint {
  if (subleaf >= CACHE_SUBLEAVES) return STATUS.TDX_SUCCESS;
  const native = maskedPlatformCpuid(platform, CPUID_POLICIES[cpuidIndex(CPUID_LEAF.CACHE, subleaf)]!);
  for (let i = 0; i < 4; i++) tdcs.setU32(TDCS.CPUID4_NATIVE_VALUES + 16 * subleaf + 4 * i, native[i]!);
  return STATUS.TDX_SUCCESS;
}

function featureLeaf(context: LeafContext): bigint {
  const { tdcs, subleaf, values, attributes } = context;
  if (subleaf === 0) return featureLeaf0(context);
  if (subleaf === 1) {
    applyXfam(context, '7.1');
    setFlags(tdcs, { PERFMON_EXT_LEAF: bit(values[EAX]!, 8) });
    assignBit(values, EAX, 6, hasAny(attributes, ATTRIBUTES.LASS));
    return STATUS.TDX_SUCCESS;
  }
  setFlags(tdcs, { DDPD: bit(values[EDX]!, 3) });
  return STATUS.TDX_SUCCESS;
}

function featureLeaf0(context: LeafContext): bigint {
  const { platform, tdcs, values, attributes } = context;
  applyXfam(context, '7.0');
  const hle = bit(values[EBX]!, 4);
  if (hle !== bit(values[EBX]!, 11)) return WRONG_LEAF;
  if (hle && !hasAny(platform.msrs.get(MODULE_MSR.ARCH_CAPABILITIES)!, TSX_CTRL)) {
    return withOperand(STATUS.TDX_INCORRECT_MSR_VALUE, MODULE_MSR.ARCH_CAPABILITIES);
  }
  assignBit(values, ECX, 31, hasAny(attributes, ATTRIBUTES.PKS));
  assignBit(values, ECX, 23, false);
  setFlags(tdcs, {
    TSX: hle,
    RDT_A: bit(values[EBX]!, 15),
    RDT_M: bit(values[EBX]!, 12),
    WAITPKG: bit(values[ECX]!, 5),
    TME: bit(values[ECX]!, 13),
    LA57: bit(values[ECX]!, 16),
    PCONFIG: bit(values[EDX]!, 18),
    NO_CORE_CAPABILITIES: false,
  });
  return STATUS.TDX_SUCCESS;
}

function xsaveLeaf(context: LeafContext): bigint {
  const { platform, lp, tdcs, subleaf, values, xfam } = context;
  if (subleaf === 0) {
    applyXfam(context, 'd.0');
    // The size of the area for the TD's components; a real CPU reports it with XCR0 set to them.
    values[ECX] = lp.cpuid(CPUID_LEAF.XSAVE, 0)[EBX];
    return STATUS.TDX_SUCCESS;
  }
  if (subleaf > 1) return clearUnless(hasAny(xfam, 1n << BigInt(subleaf)), context);
  applyXfam(context, 'd.1');
  if (!hasAny(xfam, BigInt(platform.xfdFaultingMask))) assignBit(values, EAX, 4, false);
  setFlags(tdcs, { XFD: bit(values[EAX]!, 4) });
  return STATUS.TDX_SUCCESS;
}

/** Performance monitoring in detail, for a profiled TD whose leaf 7 announces it. */
function perfmonExtLeaf(context: LeafContext): bigint {
  const { tdcs, subleaf, values, attributes } = context;
  const announced = tdcs.flag(TDCS.CPUID_FLAGS + CPUID_FLAG.PERFMON_EXT_LEAF);
  if (!hasAny(attributes, ATTRIBUTES.PERFMON) || !announced) return clearUnless(false, context);
  if (subleaf === 0) {
    tdcs.setU32(TDCS.PERFMON_EXT_SUBLEAVES, values[EAX]!);
    return STATUS.TDX_SUCCESS;
  }
  return clearUnless(bit(tdcs.u32(TDCS.PERFMON_EXT_SUBLEAVES), subleaf), context);
}

/** Address widths: MAXPA as configured, as the GPA width where that is virtualised, or the platform's. */
function addressSizeLeaf({ platform, tdcs, values }: LeafContext): bigint {
  const flags = tdcs.u64(TDCS.CONFIG_FLAGS);
  const width = gpaWidth(tdcs);
  const narrower = Math.min(platform.maxPa, width);
  const linearBits = LINEAR_BITS[tdcs.flag(TDCS.CPUID_FLAGS + CPUID_FLAG.LA57) ? 1 : 0];
  let paBits = platform.maxPa;
  let gpaBits = 0;
  if (hasAny(flags, CONFIG_FLAGS.MAXGPA_VIRT)) gpaBits = narrower;
  else if (hasAny(flags, CONFIG_FLAGS.MAXPA_VIRT)) {
    paBits = values[EAX]! & 0xff || narrower;
    if (paBits > narrower || paBits < MIN_VIRTUAL_MAXPA) return OPERAND_INVALID_CPUID;
  }
  tdcs.setU8(TDCS.VIRT_MAXPA, gpaBits || paBits);
  values[EAX] = paBits | (linearBits << 8) | (gpaBits << 16) | (values[EAX]! & 0xff00_0000);
  return STATUS.TDX_SUCCESS;
}

/** Leaves whose values depend on more than the policy table. */
const LEAF_RULES: Readonly<Record<number, LeafRule>> = {
  [CPUID_LEAF.VERSION]: versionLeaf,
  [CPUID_LEAF.CACHE]: cacheLeaf,
  // MONITOR and MWAIT
  5: (context) => clearUnless(context.tdcs.flag(TDCS.CPUID_FLAGS + CPUID_FLAG.MONITOR_MWAIT), context),
  [CPUID_LEAF.FEATURES]: featureLeaf,
  [CPUID_LEAF.PERFMON]: (context) => clearUnless(hasAny(context.attributes, ATTRIBUTES.PERFMON), context),
  [CPUID_LEAF.XSAVE]: xsaveLeaf,
  // Processor trace
  20: (context) => clearUnless(hasAny(context.xfam, XFAM.PT), context),
  [CPUID_LEAF.TSC]: ({ tdcs, values }) => {
    values[EBX] = tdcs.u16(TDCS.TSC_FREQUENCY);
    return STATUS.TDX_SUCCESS;
  },
  // Key Locker is not supported
  25: (context) => clearUnless(false, context),
  // Native model: of use to a profiled TD only, which is never migratable
  26: (context) => clearUnless(!hasAny(context.attributes, ATTRIBUTES.MIGRATABLE), context),
  [CPUID_LEAF.LBR]: (context) => clearUnless(hasAny(context.xfam, XFAM.LBR), context),
  // AMX tiles
  29: (context) => clearUnless(hasAll(context.xfam, XFAM.AMX), context),
  [CPUID_LEAF.PERFMON_EXT]: perfmonExtLeaf,
  [CPUID_LEAF.ADDRESS_SIZE]: addressSizeLeaf,
};
