/** CPUID as SYS.INIT samples and checks it, and as LP.INIT compares it on every other processor. */
import { CPUID_POLICIES, type CpuidPolicy, type CpuidQuad } from '../abi/cpuid-policy.ts';
import { R8, R9, R10, RCX, RDX } from '../abi/registers.ts';
import { withOperand } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import { fatal } from './fatal.ts';
import { MAX_PKGS } from './kot.ts';
import {
  type CpuFacts,
  cpuidKey,
  type InitializedLp,
  NO_SUBLEAF,
  type PlatformSnapshot,
} from './platform.ts';
import {
  CPUID_LEAF,
  cpuFeature,
  EAX,
  EBX,
  ECX,
  EDX,
  fixedCounters,
  summarise,
  type Values,
  xcr0Mask,
  xssMask,
} from './platform-cpu-facts.ts';
import { locate, TopologyScan } from './platform-topology.ts';

/** Last base leaf that a CPU must have, and last extended leaf. */
const MIN_LAST_BASE_LEAF = 0x1f;
const MIN_LAST_EXTENDED_LEAF = CPUID_LEAF.ADDRESS_SIZE;

/** Architectural performance monitoring version, and fixed counters the module can save. */
const MIN_PERFMON_VERSION = 5;
const MAX_FIXED_COUNTERS = 7;

const ZERO: CpuidQuad = [0, 0, 0, 0];
const ONES: CpuidQuad = [0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff];

/** Samples every leaf in the table's order: the facts, or the status of the first check that fails, its outputs set. @internal */
export function sampleCpuid(lp: LogicalProcessor, fms: number, earlyStepping: boolean): CpuFacts | bigint {
  const limits = leafLimits(lp);
  if (limits.base < MIN_LAST_BASE_LEAF) return leafNotSupported(MIN_LAST_BASE_LEAF);
  if (limits.extended < MIN_LAST_EXTENDED_LEAF) return leafNotSupported(MIN_LAST_EXTENDED_LEAF);
  const values = new Map<number, CpuidQuad>();
  const topology = new TopologyScan();
  for (const policy of CPUID_POLICIES) {
    const { leaf, subleaf = NO_SUBLEAF } = policy;
    const value = hasLeaf(limits, leaf) ? lp.cpuid(leaf, subleaf) : ZERO;
    if (earlyStepping && leaf === CPUID_LEAF.THERMAL) continue;
    const exempt = earlyStepping && leaf === CPUID_LEAF.FEATURES && subleaf === 2;
    const { verifyMask = ZERO, verifyValue = ZERO } = policy;
    if (!exempt && !matches(value, verifyMask, verifyValue)) {
      return incorrectCpuid(lp, policy, verifyMask, verifyValue);
    }
    const status = checkLeaf(lp, policy, value, values, topology);
    if (status !== STATUS.TDX_SUCCESS) return status;
    values.set(cpuidKey(leaf, subleaf), kept(policy, value, values, fms));
  }
  return summarise(values, limits.extended, topology);
}

/** What is remembered of a leaf. */
function kept({ leaf }: CpuidPolicy, value: CpuidQuad, values: Values, fms: number): CpuidQuad {
  if (leaf === CPUID_LEAF.VERSION) return [fms, value[EBX], value[ECX], value[EDX]];
  if (leaf === CPUID_LEAF.PERFMON_EXT && !cpuFeature(values, 'perfmonExtLeaf')) return ZERO;
  return value;
}

/** The check that only one leaf has. */
function checkLeaf(
  lp: LogicalProcessor,
  policy: CpuidPolicy,
  value: CpuidQuad,
  values: Values,
  topology: TopologyScan,
): bigint {
  switch (policy.leaf) {
    case CPUID_LEAF.PERFMON:
      return checkPerfmon(lp, policy, value);
    case CPUID_LEAF.XSAVE:
      return checkXsave(policy.subleaf!, value, values);
    case CPUID_LEAF.TSC:
      return value[EBX] === 0 ? leafNotSupported(CPUID_LEAF.TSC) : STATUS.TDX_SUCCESS;
    case CPUID_LEAF.TOPOLOGY:
      return topology.scan(policy.subleaf!, value, values.get(cpuidKey(CPUID_LEAF.CACHE, 3))!);
    case CPUID_LEAF.PERFMON_EXT:
      return checkPerfmonExt(lp, policy, value, values);
    case CPUID_LEAF.ADDRESS_SIZE:
      return checkLinearWidth(lp, policy, value, values);
    default:
      return STATUS.TDX_SUCCESS;
  }
}

function checkPerfmon(lp: LogicalProcessor, policy: CpuidPolicy, value: CpuidQuad): bigint {
  if ((value[EAX] & 0xff) < MIN_PERFMON_VERSION) {
    return incorrectCpuid(lp, policy, [0xf, 0, 0, 0], [MIN_PERFMON_VERSION, 0, 0, 0]);
  }
  const all = 2 ** MAX_FIXED_COUNTERS - 1;
  if (fixedCounters(value) > all) {
    return incorrectCpuid(lp, policy, [0, 0, 0xffff_ffff, 0x1f], [0, 0, all, MAX_FIXED_COUNTERS]);
  }
  return STATUS.TDX_SUCCESS;
}

/** A component is either user or supervisor state; a CPU that contradicts itself there is not one to run on. */
function checkXsave(subleaf: number, value: CpuidQuad, values: Values): bigint {
  if (subleaf < 2) return STATUS.TDX_SUCCESS;
  const supervisor = (value[ECX] & 1) === 1;
  const others = supervisor ? xcr0Mask(values) : xssMask(values);
  if ((others & (1 << subleaf)) !== 0)
    fatal(`CPUID(0xD) disagrees on the kind of state component ${subleaf}`);
  return STATUS.TDX_SUCCESS;
}

/** A subleaf that subleaf 0 does not announce must be all zero. */
function checkPerfmonExt(
  lp: LogicalProcessor,
  policy: CpuidPolicy,
  value: CpuidQuad,
  values: Values,
): bigint {
  const subleaf = policy.subleaf!;
  if (!cpuFeature(values, 'perfmonExtLeaf') || subleaf === 0) return STATUS.TDX_SUCCESS;
  const announced = values.get(cpuidKey(CPUID_LEAF.PERFMON_EXT, 0))![EAX] & (1 << subleaf);
  if (announced !== 0 || matches(value, ONES, ZERO)) return STATUS.TDX_SUCCESS;
  return incorrectCpuid(lp, policy, ONES, ZERO);
}

/** The width of linear addresses must agree with five-level paging. */
function checkLinearWidth(
  lp: LogicalProcessor,
  policy: CpuidPolicy,
  value: CpuidQuad,
  values: Values,
): bigint {
  if ((value[EAX] & 0xff) > 52) fatal('physical addresses are wider than 52 bits');
  const expected = (cpuFeature(values, 'la57') ? 57 : 48) << 8;
  if ((value[EAX] & 0xff00) === expected) return STATUS.TDX_SUCCESS;
  return incorrectCpuid(lp, policy, [0xff00, 0, 0, 0], [expected, 0, 0, 0]);
}

/** Compares this LP with the sample: its place, or the status of the first difference, its outputs set. @internal */
export function compareCpuid(lp: LogicalProcessor, platform: PlatformSnapshot): InitializedLp | bigint {
  const limits = leafLimits(lp);
  let place: InitializedLp = { package: 0, core: 0 };
  for (const policy of CPUID_POLICIES) {
    const { leaf, subleaf = NO_SUBLEAF, verifySame = ZERO } = policy;
    const expected = platform.cpuid.get(cpuidKey(leaf, subleaf));
    if (expected === undefined || !hasLeaf(limits, leaf)) continue;
    const value = lp.cpuid(leaf, subleaf);
    if (!matches(value, verifySame, masked(expected, verifySame))) {
      setMask(lp, policy, verifySame);
      return STATUS.TDX_INCONSISTENT_CPUID_FIELD;
    }
    if (leaf === CPUID_LEAF.TOPOLOGY && subleaf === 0) {
      place = locate(platform.x2apic, value[EDX]);
      if (place.package >= MAX_PKGS) return withOperand(STATUS.TDX_INVALID_PKG_ID, place.package);
    }
  }
  return place;
}

interface LeafLimits {
  readonly base: number;
  readonly extended: number;
}

function leafLimits(lp: LogicalProcessor): LeafLimits {
  return { base: lp.cpuid(CPUID_LEAF.VENDOR)[EAX], extended: lp.cpuid(CPUID_LEAF.FIRST_EXTENDED)[EAX] };
}

function hasLeaf(limits: LeafLimits, leaf: number): boolean {
  return leaf <= limits.base || (leaf >= CPUID_LEAF.FIRST_EXTENDED && leaf <= limits.extended);
}

function matches(value: CpuidQuad, mask: CpuidQuad, expected: CpuidQuad): boolean {
  return value.every((word, i) => (word & mask[i]!) >>> 0 === expected[i]);
}

function masked(value: CpuidQuad, mask: CpuidQuad): CpuidQuad {
  const word = (i: 0 | 1 | 2 | 3): number => (value[i] & mask[i]) >>> 0;
  return [word(EAX), word(EBX), word(ECX), word(EDX)];
}

function leafNotSupported(leaf: number): bigint {
  return withOperand(STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED, leaf);
}

function incorrectCpuid(
  lp: LogicalProcessor,
  policy: CpuidPolicy,
  mask: CpuidQuad,
  value: CpuidQuad,
): bigint {
  setMask(lp, policy, mask);
  lp.regs.q[R9] = pair(value[EAX], value[EBX]);
  lp.regs.q[R10] = pair(value[ECX], value[EDX]);
  return STATUS.TDX_INCORRECT_CPUID_VALUE;
}

/** RCX tells the leaf and subleaf, RDX and R8 the mask of the bits that were looked at. */
function setMask(lp: LogicalProcessor, { leaf, subleaf = NO_SUBLEAF }: CpuidPolicy, mask: CpuidQuad): void {
  lp.regs.q[RCX] = pair(leaf, subleaf);
  lp.regs.q[RDX] = pair(mask[EAX], mask[EBX]);
  lp.regs.q[R8] = pair(mask[ECX], mask[EDX]);
}

function pair(low: number, high: number): bigint {
  return BigInt(low) | (BigInt(high) << 32n);
}
