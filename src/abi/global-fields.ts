/**
 * Global metadata: the fields that SYS.RD and SYS.RDALL answer, in the order in which they iterate (facts: global
 * metadata table of releases 1.5.01 to 1.5.25 and 2.0). Release 1.0 has none of them: TDSYSINFO is all it offers.
 */

/** One field, or a run of fields with consecutive ids. @public */
export interface GlobalField {
  /** ABI name. */
  readonly name: string;
  /** Id of the first element of the first field. */
  readonly id: bigint;
  /** Fields with consecutive ids. */
  readonly fields: number;
  /** Elements of one field. */
  readonly elements: number;
  readonly elementBytes: number;
  /** TDs may read it too. */
  readonly guest: boolean;
  /** First release that has it. */
  readonly since: string;
}

/** Parts of a metadata field id (module facts 9). @public */
export interface FieldIdParts {
  /** Bits 23:0. */
  readonly fieldCode: number;
  /** Bits 61:56. */
  readonly classCode: number;
  /** Bits 54:52: 0 system, 1 TD, 2 VCPU. */
  readonly contextCode: number;
  /** 1 << bits 33:32. */
  readonly elementBytes: number;
  /** Bits 37:34, the last element of a field. */
  readonly lastElement: number;
  /** Bits 46:38, the last field of a sequence. */
  readonly lastField: number;
  /** Bit 63: not part of the architecture. */
  readonly nonArchitectural: boolean;
}

/** Id that asks for the first field, and that follows the last one. @public */
export const NO_FIELD = 0xffff_ffff_ffff_ffffn;

interface RowOptions {
  readonly fields?: number;
  readonly elements?: number;
  readonly guest?: true;
  readonly since?: string;
}

function row(id: bigint, name: string, options: RowOptions = {}): GlobalField {
  const { fields = 1, elements = 1, guest = false, since = '1.5.01' } = options;
  return { name, id, fields, elements, elementBytes: fieldIdParts(id).elementBytes, guest, since };
}

/** @public */
export const GLOBAL_FIELDS: readonly GlobalField[] = [
  // class 0: platform info
  row(0x0000000200000000n, 'NUM_PKGS'),
  row(0x0000000200000001n, 'PKG_FMS', { fields: 8 }),
  // class 8: tdx module version
  row(0x0800000200000000n, 'VENDOR_ID', { guest: true }),
  row(0x8800000200000001n, 'BUILD_DATE'),
  row(0x8800000100000002n, 'BUILD_NUM'),
  row(0x0800000100000003n, 'MINOR_VERSION', { guest: true }),
  row(0x0800000100000004n, 'MAJOR_VERSION', { guest: true }),
  row(0x0800000100000005n, 'UPDATE_VERSION'),
  row(0x0800000100000006n, 'INTERNAL_VERSION'),
  // class 9: tdx module handoff
  row(0x8900000100000000n, 'MODULE_HV'),
  row(0x8900000100000001n, 'MIN_UPDATE_HV'),
  row(0x8900000000000002n, 'NO_DOWNGRADE'),
  row(0x8900000100000003n, 'NUM_HANDOFF_PAGES'),
  row(0x8900000000000004n, 'HANDOFF_DATA_VALID'),
  row(0x8900000100000005n, 'HANDOFF_DATA_HV'),
  row(0x8900000200000006n, 'HANDOFF_DATA_SIZE'),
  // class 10: tdx module info
  row(0x0a00000200000000n, 'SYS_ATTRIBUTES', { guest: true }),
  row(0x0a00000000000001n, 'NUM_TDX_FEATURES', { guest: true }),
  row(0x0a00000300000008n, 'TDX_FEATURES0', { guest: true }),
  // class 16: cmr info
  row(0x9000000100000000n, 'NUM_CMRS'),
  row(0x9000000300000080n, 'CMR_BASE', { fields: 32 }),
  row(0x9000000300000100n, 'CMR_SIZE', { fields: 32 }),
  // class 17: tdmr info
  row(0x9100000100000008n, 'MAX_TDMRS'),
  row(0x9100000100000009n, 'MAX_RESERVED_PER_TDMR'),
  row(0x9100000100000010n, 'PAMT_4K_ENTRY_SIZE'),
  row(0x9100000100000011n, 'PAMT_2M_ENTRY_SIZE'),
  row(0x9100000100000012n, 'PAMT_1G_ENTRY_SIZE'),
  row(0x9100000000000013n, 'PAMT_PAGE_BITMAP_ENTRY_BITS', { since: '1.5.20' }),
  row(0x9100000000000014n, 'MIN_DYNAMIC_PAMT_NUM_HKID_BITS', { since: '1.5.20' }),
  // class 24: td control structures
  row(0x9800000100000000n, 'TDR_BASE_SIZE'),
  row(0x9800000100000100n, 'TDCS_BASE_SIZE'),
  row(0x9800000100000101n, 'TDCS_SIZE_PER_L2_VM'),
  row(0x9800000100000200n, 'TDVPS_BASE_SIZE'),
  row(0x9800000100000201n, 'TDVPS_SIZE_PER_L2_VM'),
  // class 25: td configurability
  row(0x1900000300000000n, 'ATTRIBUTES_FIXED0'),
  row(0x1900000300000001n, 'ATTRIBUTES_FIXED1'),
  row(0x1900000300000002n, 'XFAM_FIXED0'),
  row(0x1900000300000003n, 'XFAM_FIXED1'),
  row(0x9900000100000004n, 'NUM_CPUID_CONFIG'),
  row(0x9900000300000006n, 'CONFIG_FLAGS_FIXED0'),
  row(0x9900000300000007n, 'CONFIG_FLAGS_FIXED1'),
  row(0x9900000100000008n, 'MAX_VCPUS_PER_TD', { since: '1.5.05' }),
  row(0x9900000000000009n, 'MIN_VIRT_MAXPA', { since: '1.5.06' }),
  row(0x990000010000000an, 'MAX_EVENT_FILTERS', { since: '1.5.09' }),
  row(0x9900000300000400n, 'CPUID_CONFIG_LEAVES', { fields: 32 }),
  row(0x9900000300000500n, 'CPUID_CONFIG_VALUES', { fields: 32, elements: 2 }),
  row(0x9900000300000600n, 'IA32_ARCH_CAPABILITIES_CONFIG_MASK'),
  row(0x9900000100000800n, 'NUM_ALLOWED_FMS'),
  row(0x9900000100000801n, 'NUM_DISALLOWED_FMS'),
  row(0x9900000300000810n, 'ALLOWED_FMS', { fields: 64 }),
  row(0x9900000300000850n, 'DISALLOWED_FMS', { fields: 64 }),
  // class 32: migration
  row(0xa000000300000000n, 'MIG_ATTRIBUTES', { guest: true }),
  row(0x2000000100000001n, 'MIN_EXPORT_VERSION', { guest: true }),
  row(0x2000000100000002n, 'MAX_EXPORT_VERSION', { guest: true }),
  row(0x2000000100000003n, 'MIN_IMPORT_VERSION', { guest: true }),
  row(0x2000000100000004n, 'MAX_IMPORT_VERSION', { guest: true }),
  row(0xa000000100000010n, 'MAX_MIGS'),
  row(0xa000000000000020n, 'NUM_IMMUTABLE_STATE_PAGES'),
  row(0xa000000000000021n, 'NUM_TD_STATE_PAGES'),
  row(0xa000000000000022n, 'NUM_VP_STATE_PAGES'),
  // class 33: service td
  row(0xa100000100000000n, 'MAX_SERV_TDS'),
  row(0xa100000300000001n, 'SERVTD_ATTR_FIXED0'),
  row(0xa100000300000002n, 'SERVTD_ATTR_FIXED1'),
  // class 34: td partitioning
  row(0xa200000100000000n, 'GUEST_L2_GPA_ATTR_MASK', { guest: true }),
  row(0xa200000300000001n, 'VM_CTLS_FIXED0'),
  row(0xa200000300000002n, 'VM_CTLS_FIXED1'),
  row(0xa200000300000003n, 'VPCU_L2_CTLS_FIXED0'),
  row(0xa200000300000004n, 'VCPU_L2_CTLS_FIXED1'),
  row(0xa200000300000005n, 'VPCU_L2_DEBUG_CTLS_FIXED0'),
  row(0xa200000300000006n, 'VCPU_L2_DEBUG_CTLS_FIXED1'),
  // class 48: tdx connect
  row(0x3000000300000000n, 'TDX_CONNECT_FEATURES', { since: '2.0' }),
];

/** Takes a field id apart. @public */
export function fieldIdParts(id: bigint): FieldIdParts {
  const bits = (high: number, low: number): number =>
    Number(BigInt.asUintN(high - low + 1, id >> BigInt(low)));
  return {
    fieldCode: bits(23, 0),
    classCode: bits(61, 56),
    contextCode: bits(54, 52),
    elementBytes: 1 << bits(33, 32),
    lastElement: bits(37, 34),
    lastField: bits(46, 38),
    nonArchitectural: bits(63, 63) === 1,
  };
}

/** Fields of a release ("1.5.25"), in iteration order; none for 1.0. @public */
export function globalFieldsOf(version: string): readonly GlobalField[] {
  return GLOBAL_FIELDS.filter((field) => compareVersions(field.since, version) <= 0);
}

/** The field that holds the element `id`, with the numbers of field and element in it; undefined if none does. @public */
export function findGlobalField(
  id: bigint,
): { readonly field: GlobalField; readonly index: number; readonly element: number } | undefined {
  const asked = fieldIdParts(id);
  for (const field of GLOBAL_FIELDS) {
    const first = fieldIdParts(field.id);
    const offset = asked.fieldCode - first.fieldCode;
    if (asked.classCode !== first.classCode || offset < 0) continue;
    if (offset >= field.fields * field.elements) continue;
    return { field, index: Math.floor(offset / field.elements), element: offset % field.elements };
  }
  return undefined;
}

/** Negative, zero or positive as release `a` is older than, the same as or newer than `b`. @public */
export function compareVersions(a: string, b: string): number {
  const left = a.split('.').map(Number);
  const right = b.split('.').map(Number);
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
