/** Where the values that a TD sees of CPUID are kept: in its TDCS, in the order of the policy table. */
import {
  CPUID_FIXED0_EXTENDED_BASE,
  CPUID_POLICIES,
  type CpuidPolicy,
  type CpuidQuad,
} from '../../abi/cpuid-policy.ts';
import { cpuidKey, NO_SUBLEAF, type PlatformSnapshot } from '../platform.ts';
import type { ControlStructure } from './control-structure.ts';
import { TDCS } from './layout.ts';

const ZERO: CpuidQuad = [0, 0, 0, 0];

/** Index of a leaf in the policy table and so in TDCS.CPUID_VALUES, or -1. @public */
export function cpuidIndex(leaf: number, subleaf: number): number {
  return CPUID_POLICIES.findIndex(
    (policy) => policy.leaf === leaf && (policy.subleaf === undefined || policy.subleaf === subleaf),
  );
}

/** The platform's value of a leaf with the policy's fixed bits. @public */
export function maskedPlatformCpuid(platform: PlatformSnapshot, policy: CpuidPolicy): Uint32Array {
  const { leaf, subleaf = NO_SUBLEAF, fixed0OrDynamic = ZERO, fixed1 = ZERO } = policy;
  const native = platform.cpuid.get(cpuidKey(leaf, subleaf))!;
  // A loop, since Uint32Array.from with a function is ten times as slow, and every TD needs every leaf.
  const values = new Uint32Array(4);
  for (let i = 0; i < 4; i++) values[i] = (native[i]! & ~fixed0OrDynamic[i]!) | fixed1[i]!;
  return values;
}

/** Where the TDCS keeps the values of the leaf at `index` of the policy table. @public */
export function cpuidValuesAt(index: number): number {
  return TDCS.CPUID_VALUES + 16 * index;
}

/** A leaf's values in the TDCS. @public */
export function loadCpuid(tdcs: ControlStructure, index: number): Uint32Array {
  const values = new Uint32Array(4);
  for (let i = 0; i < 4; i++) values[i] = tdcs.u32(cpuidValuesAt(index) + 4 * i);
  return values;
}

/** @public */
export function storeCpuid(tdcs: ControlStructure, index: number, values: ArrayLike<number>): void {
  for (let i = 0; i < 4; i++) tdcs.setU32(cpuidValuesAt(index) + 4 * i, values[i]!);
}

const FIRST_EXTENDED_LEAF = 0x8000_0000;

/** True for a leaf that a TD with this bitmap sees as all zero. @public */
export function isFixed0Leaf(bitmap: bigint, leaf: number): boolean {
  const isExtended = leaf >= FIRST_EXTENDED_LEAF;
  if (!isExtended && leaf >= CPUID_FIXED0_EXTENDED_BASE) return false;
  const bit = isExtended ? leaf - FIRST_EXTENDED_LEAF + CPUID_FIXED0_EXTENDED_BASE : leaf;
  return ((bitmap >> BigInt(bit)) & 1n) !== 0n;
}
