/** The processor topology that a TD sees: leaf 0x1F as its creator describes it, and leaf 0xB made from it. */
import { CPUID_POLICIES } from '../../abi/cpuid-policy.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { PlatformSnapshot } from '../platform.ts';
import { CPUID_LEAF } from '../platform-cpu-facts.ts';
import type { ControlStructure } from './control-structure.ts';
import { cpuidIndex, loadCpuid, maskedPlatformCpuid, storeCpuid } from './cpuid-values.ts';

/** Level types of leaf 0x1F: none, SMT, core, and wider ones up to the die group. */
const LEVEL = { NONE: 0, SMT: 1, CORE: 2, LIMIT: 6 } as const;
/** Leaf 0x1F has one subleaf for each level type. */
const SUBLEAVES = LEVEL.LIMIT;
const LEGACY_LEAF = 0xb;
const LEGACY_LAST_SUBLEAF = 2;
const ECX = 2;

/** ECX of a topology subleaf. */
function levelWord(number: number, type: number): number {
  return number | (type << 8);
}

/**
 * Checks leaf 0x1F in the TDCS, fills it from the platform when it is all zero, and derives leaf 0xB. Returns
 * TDX_SUCCESS or TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED.
 * @internal
 */
export function computeTopology(platform: PlatformSnapshot, tdcs: ControlStructure): bigint {
  let fromPlatform = false;
  let type: number = LEVEL.NONE;
  let hasCore = false;
  let legacyLevel = 0;
  let last: Uint32Array = new Uint32Array(4);
  for (let subleaf = 0; subleaf < SUBLEAVES; subleaf++) {
    const index = cpuidIndex(CPUID_LEAF.TOPOLOGY, subleaf);
    let values = loadCpuid(tdcs, index);
    const isZero = values.every((value) => value === 0);
    if (subleaf === 0) fromPlatform = isZero;
    else if (fromPlatform && !isZero) return STATUS.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED;
    if (fromPlatform) {
      values = maskedPlatformCpuid(platform, CPUID_POLICIES[index]!);
      storeCpuid(tdcs, index, values);
    }
    const number = values[ECX]! & 0xff;
    const previous = type;
    type = (values[ECX]! >>> 8) & 0xff;
    if (type === LEVEL.NONE) {
      if (!hasCore) return STATUS.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED;
      continue;
    }
    if (type <= previous || type >= LEVEL.LIMIT || number !== subleaf) {
      return STATUS.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED;
    }
    if (type === LEVEL.SMT) {
      if (subleaf !== 0) return STATUS.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED;
      storeCpuid(tdcs, cpuidIndex(LEGACY_LEAF, 0), values);
      legacyLevel = 1;
    }
    hasCore ||= type === LEVEL.CORE;
    last = values;
  }
  storeLegacy(tdcs, legacyLevel, last);
  return STATUS.TDX_SUCCESS;
}

/** Leaf 0xB knows SMT and core only: the widest level of leaf 0x1F stands as its core level, and nothing follows. */
function storeLegacy(tdcs: ControlStructure, level: number, widest: Uint32Array): void {
  const [eax, ebx, , edx] = widest;
  const core = [eax!, ebx!, levelWord(level, LEVEL.CORE), edx!];
  storeCpuid(tdcs, cpuidIndex(LEGACY_LEAF, level), core);
  for (let after = level + 1; after <= LEGACY_LAST_SUBLEAF; after++) {
    storeCpuid(tdcs, cpuidIndex(LEGACY_LEAF, after), [0, 0, levelWord(after, LEVEL.NONE), edx!]);
  }
}
