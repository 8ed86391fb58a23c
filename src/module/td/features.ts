/** Bits of a TD's configuration and controls (module facts 6 and 9). */

/** TD_PARAMS.ATTRIBUTES. @public */
export const ATTRIBUTES = {
  DEBUG: 1n << 0n,
  ICSSD: 1n << 16n,
  LASS: 1n << 27n,
  SEPT_VE_DISABLE: 1n << 28n,
  MIGRATABLE: 1n << 29n,
  PKS: 1n << 30n,
  PERFMON: 1n << 63n,
} as const;

/** TD_PARAMS.XFAM: extended state components, some as the groups that go together. @public */
export const XFAM = {
  AVX: 1n << 2n,
  AVX512: 0b111n << 5n,
  PT: 1n << 8n,
  PKRU: 1n << 9n,
  CET: 0b11n << 11n,
  UINTR: 1n << 14n,
  LBR: 1n << 15n,
  AMX: 0b11n << 17n,
} as const;

/** TD_PARAMS.CONFIG_FLAGS. @public */
export const CONFIG_FLAGS = {
  GPAW: 1n << 0n,
  FLEXIBLE_PENDING_VE: 1n << 1n,
  NO_RBP_MOD: 1n << 2n,
  MAXPA_VIRT: 1n << 3n,
  MAXGPA_VIRT: 1n << 4n,
} as const;

/** TDCS.TD_CTLS. @public */
export const TD_CTLS = {
  PENDING_VE_DISABLE: 1n << 0n,
  ENUM_TOPOLOGY: 1n << 1n,
  VIRT_CPUID2: 1n << 2n,
  REDUCE_VE: 1n << 3n,
  LOCK: 1n << 63n,
} as const;

/** True when `value` has a bit of `mask`. @public */
export function hasAny(value: bigint, mask: bigint): boolean {
  return (value & mask) !== 0n;
}

/** True when `value` has every bit of `mask`. @public */
export function hasAll(value: bigint, mask: bigint): boolean {
  return (value & mask) === mask;
}
