/** The metadata fields of a TD: its TDR and its TDCS (module facts 9). */
import { CPUID_POLICIES } from '../../abi/cpuid-policy.ts';
import type { MetadataField } from '../../abi/metadata-field.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { CPUID_CLASS, FIRST_TDCS_CLASS, L2_SEPT_ROOT_CLASSES, TD_FIELDS } from '../../abi/td-fields.ts';
import type { PlatformSnapshot } from '../platform.ts';
import type { TdxModule } from '../tdx-module.ts';
import type { ControlStructure } from './control-structure.ts';
import { cpuidIndex, cpuidValuesAt, isFixed0Leaf } from './cpuid-values.ts';
import { CONFIG_FLAGS, hasAny, TD_CTLS } from './features.ts';
import { TDCS } from './layout.ts';
import { cpuidOfCode, type Loaded, type MetadataElement, type MetadataSpace } from './metadata.ts';
import { drawMigrationKey } from './migration-key.ts';
import { updateParavirtFlags } from './paravirt-flags.ts';
import type { TrustDomain } from './trust-domain.ts';

const CONTEXT_TD = 1;
const CPUID_CODE_RESERVED = 0xfe_0000;
const MICROSECONDS = 1_000_000n;
/** HP_LOCK_TIMEOUT in microseconds. */
const TIMEOUT_MIN = 10_000n;
const TIMEOUT_MAX = 100_000_000n;
const EVERY_BIT = 0xffff_ffff_ffff_ffffn;
/** The only migration protocol: MIN and MAX of EXPORT_VERSION and IMPORT_VERSION. */
const MIGRATION_VERSION = 0n;

/** The fields of `td`; only as many secure EPT roots as it has L2 VMs. @public */
export function tdMetadata(module: TdxModule, td: TrustDomain): MetadataSpace {
  const platform = module.platform!;
  return {
    fields: fieldsOf(td.tdcs.u16(TDCS.NUM_L2_VMS)),
    context: CONTEXT_TD,
    load: (element, access, purpose) => {
      if (
        access === 'service' &&
        purpose === 'read' &&
        isNewKeyDue(element) &&
        !drawMigrationKey(module, td.tdcs)
      ) {
        return { refusal: STATUS.TDX_RND_NO_ENTROPY };
      }
      return load(platform, td, element, access !== 'guest' && purpose === 'read');
    },
    store: (element, value, old, mask) => store(platform, td, element, value, old, mask),
  };
}

/** A migration TD that reads the first part of the key for exports gets a new key. */
function isNewKeyDue({ field, number }: MetadataElement): boolean {
  return field.name === 'MIG_ENC_KEY' && number === 0;
}

/** By number of L2 VMs. */
const FIELDS: (readonly MetadataField[] | undefined)[] = [];

function fieldsOf(l2Vms: number): readonly MetadataField[] {
  const missing = L2_SEPT_ROOT_CLASSES.slice(l2Vms);
  FIELDS[l2Vms] ??= TD_FIELDS.filter(({ classCode }) => !missing.includes(classCode));
  return FIELDS[l2Vms];
}

function load(
  platform: PlatformSnapshot,
  td: TrustDomain,
  { field, code, number }: MetadataElement,
  isHostRead: boolean,
): Loaded {
  if (field.classCode === CPUID_CLASS) return loadCpuidValue(td.tdcs, code, isHostRead);
  if (field.name === 'NUM_CPUID_VALUES') return { value: BigInt(CPUID_POLICIES.length) };
  const structure = field.classCode < FIRST_TDCS_CLASS ? td.tdr : td.tdcs;
  const value = structure.element(field.offset + field.elementBytes * number, field.elementBytes);
  if (field.name !== 'HP_LOCK_TIMEOUT') return { value };
  return { value: (BigInt.asUintN(32, value) * MICROSECONDS) / BigInt(platform.tscHz) };
}

/** A leaf that the TD sees as zero can be read by the host though it is not stored; every other access needs a value. */
function loadCpuidValue(tdcs: ControlStructure, code: number, isHostRead: boolean): Loaded {
  if ((code & CPUID_CODE_RESERVED) !== 0) return { refusal: STATUS.TDX_METADATA_FIELD_ID_INCORRECT };
  const [leaf, subleaf] = cpuidOfCode(code);
  const index = cpuidIndex(leaf, subleaf);
  if (isHostRead && isFixed0Leaf(tdcs.u64(TDCS.CPUID_FIXED0_BITMAP), leaf)) return { value: 0n };
  if (index < 0 || !tdcs.flag(TDCS.CPUID_VALID + index)) {
    return { refusal: STATUS.TDX_METADATA_FIELD_NOT_READABLE };
  }
  return { value: tdcs.u64(cpuidValuesAt(index) + 8 * (code & 1)) };
}

function store(
  platform: PlatformSnapshot,
  td: TrustDomain,
  { field, number }: MetadataElement,
  value: bigint,
  old: bigint,
  mask: bigint,
): bigint {
  const { tdcs } = td;
  if (field.name === 'FEATURE_PARAVIRT_CTLS') return storeParavirtControls(tdcs, value, old);
  if (field.name === 'TD_CTLS') return storeTdControls(tdcs, value, old);
  if (field.name === 'HP_LOCK_TIMEOUT') return storeTimeout(platform, tdcs, value, mask);
  if (field.name === 'MIG_VERSION' && value !== MIGRATION_VERSION) {
    return STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
  }
  if (field.name === 'MIG_DEC_KEY') tdcs.setFlag(TDCS.MIG_DEC_KEY_SET, true);
  const structure = field.classCode < FIRST_TDCS_CLASS ? td.tdr : tdcs;
  structure.setElement(field.offset + field.elementBytes * number, field.elementBytes, value);
  return STATUS.TDX_SUCCESS;
}

/** Once it is locked, the TD's choice stands. */
function isLocked(tdcs: ControlStructure): boolean {
  return hasAny(tdcs.u64(TDCS.TD_CTLS), TD_CTLS.LOCK);
}

function storeParavirtControls(tdcs: ControlStructure, value: bigint, old: bigint): bigint {
  if (isLocked(tdcs)) return value === old ? STATUS.TDX_SUCCESS : STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
  tdcs.setU64(TDCS.FEATURE_PARAVIRT_CTLS, value);
  updateParavirtFlags(tdcs);
  return STATUS.TDX_SUCCESS;
}

function storeTdControls(tdcs: ControlStructure, value: bigint, old: bigint): bigint {
  const changed = value ^ old;
  if (isLocked(tdcs)) return changed === 0n ? STATUS.TDX_SUCCESS : STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
  const flexible = hasAny(tdcs.u64(TDCS.CONFIG_FLAGS), CONFIG_FLAGS.FLEXIBLE_PENDING_VE);
  if (!flexible && hasAny(changed, TD_CTLS.PENDING_VE_DISABLE)) {
    return STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
  }
  const reduces = hasAny(value, TD_CTLS.REDUCE_VE);
  const controls = reduces ? value | TD_CTLS.ENUM_TOPOLOGY | TD_CTLS.VIRT_CPUID2 : value;
  if (hasAny(controls, TD_CTLS.ENUM_TOPOLOGY) && !tdcs.flag(TDCS.TOPOLOGY_ENUM_CONFIGURED)) {
    return STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
  }
  tdcs.setU64(TDCS.TD_CTLS, controls);
  if (hasAny(changed, TD_CTLS.REDUCE_VE)) updateParavirtFlags(tdcs);
  return STATUS.TDX_SUCCESS;
}

function storeTimeout(
  platform: PlatformSnapshot,
  tdcs: ControlStructure,
  value: bigint,
  mask: bigint,
): bigint {
  if (mask !== EVERY_BIT) return STATUS.TDX_METADATA_WR_MASK_NOT_VALID;
  if (value < TIMEOUT_MIN || value > TIMEOUT_MAX) return STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
  const ticks = (value * BigInt(platform.tscHz)) / MICROSECONDS;
  tdcs.setU64(TDCS.HP_LOCK_TIMEOUT, BigInt.asUintN(32, ticks));
  return STATUS.TDX_SUCCESS;
}
