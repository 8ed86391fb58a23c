/** Access to metadata fields: what the RD and WR leaves of the host and of the guest have in common (module facts 9). */
import { CPUID_POLICIES } from '../../abi/cpuid-policy.ts';
import { NO_FIELD } from '../../abi/global-fields.ts';
import type { MetadataAccess, MetadataField } from '../../abi/metadata-field.ts';
import { R8, RDX, type Registers } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { CPUID_CLASS } from '../../abi/td-fields.ts';
import { NO_SUBLEAF } from '../platform.ts';
import { cpuidIndex } from './cpuid-values.ts';

/** Bits of an id that must be zero where it names one element: 31:24, 37:34, 46:38, 49:47, 55, 62. */
const RESERVED = 0x4083_fffc_ff00_0000n;
const CONTEXT_MASK = 0x70_0000_0000_0000n;
const CONTEXT_SHIFT = 52n;
const CLASS_SHIFT = 56n;
const CLASS_MASK = 0x3fn;
const CODE_MASK = 0xff_ffffn;

/** Parts of the field code of a CPUID value: element in bit 0, subleaf in 7:1, no subleaf in 8, leaf in 15:9 and 16. */
const CPUID_CODE = {
  SUBLEAF_SHIFT: 1,
  SUBLEAF_MASK: 0x7f,
  NO_SUBLEAF: 1 << 8,
  LEAF_SHIFT: 9,
  LEAF_MASK: 0x7f,
  LEAF_BIT_31: 1 << 16,
} as const;

/** An element that an id names. @public */
export interface MetadataElement {
  readonly field: MetadataField;
  /** The id as it was given, with the right context. */
  readonly id: bigint;
  readonly code: number;
  /** Number of the element from the first one of its run. */
  readonly number: number;
}

/** What can be read and written: the fields of a TD or of a vCPU. @public */
export interface MetadataSpace {
  readonly fields: readonly MetadataField[];
  /** Bits 54:52 of its ids. */
  readonly context: number;
  /** The element's value without regard to masks, or the status that tells why there is none. */
  load(element: MetadataElement, access: MetadataAccess, purpose: 'read' | 'write'): Loaded;
  /** Stores `value`, which differs from `old` in bits of `mask` only. TDX_SUCCESS or the status. */
  store(element: MetadataElement, value: bigint, old: bigint, mask: bigint): bigint;
}

/** @public */
export type Loaded = { readonly value: bigint } | { readonly refusal: bigint };

/** Answers an RD leaf in R8, and with `iterates` the id of the next readable element in RDX. @public */
export function answerRead(
  regs: Registers,
  space: MetadataSpace,
  requested: bigint,
  access: MetadataAccess,
  iterates: boolean,
): bigint {
  const id = inContext(space, requested);
  if (iterates && (id | CONTEXT_MASK) === NO_FIELD) {
    regs.q[RDX] = nextField(space, -1, access);
    return STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT;
  }
  const element = findElement(space, id);
  if (element === undefined) return STATUS.TDX_METADATA_FIELD_ID_INCORRECT;
  const loaded = space.load(element, access, 'read');
  if ('refusal' in loaded) return loaded.refusal;
  const [readable] = element.field[access];
  if (readable === 0n) return STATUS.TDX_METADATA_FIELD_NOT_READABLE;
  regs.q[R8] = loaded.value & readable;
  if (iterates) regs.q[RDX] = nextElement(space, element, access);
  return STATUS.TDX_SUCCESS;
}

/** A write of the bits in `mask`. Answers a WR leaf with the old value in R8. @public */
export function answerWrite(
  regs: Registers,
  space: MetadataSpace,
  requested: bigint,
  access: MetadataAccess,
  value: bigint,
  mask: bigint,
): bigint {
  const element = findElement(space, inContext(space, requested));
  if (element === undefined) return STATUS.TDX_METADATA_FIELD_ID_INCORRECT;
  const loaded = space.load(element, access, 'write');
  if ('refusal' in loaded) return loaded.refusal;
  const [readable, writable] = element.field[access];
  const old = presentValue(element, loaded.value, writable);
  const changing = writable & mask;
  if (changing === 0n) return STATUS.TDX_METADATA_FIELD_NOT_WRITABLE;
  // Bits that are not writable may be written only as they read.
  const forbidden = mask & ~writable;
  if ((old & readable & forbidden) !== (value & forbidden)) return STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
  const status = space.store(element, (old & ~changing) | (value & changing), old, changing);
  if (status !== STATUS.TDX_SUCCESS) return status;
  regs.q[R8] = loaded.value & readable;
  return STATUS.TDX_SUCCESS;
}

/** An address that was never set is all ones; what cannot be written of it counts as zero. */
function presentValue({ field }: MetadataElement, value: bigint, writable: bigint): bigint {
  return field.address !== undefined && value >> 63n === 1n ? value & writable : value;
}

function inContext({ context }: MetadataSpace, id: bigint): bigint {
  return (id & ~CONTEXT_MASK) | (BigInt(context) << CONTEXT_SHIFT);
}

function findElement({ fields }: MetadataSpace, id: bigint): MetadataElement | undefined {
  if ((id & RESERVED) !== 0n) return undefined;
  const classCode = Number((id >> CLASS_SHIFT) & CLASS_MASK);
  const code = Number(id & CODE_MASK);
  const sought = classCode === CPUID_CLASS ? code & 1 : code;
  const field = fields.find((candidate) => {
    const offset = sought - candidate.fieldCode;
    const codes = candidate.fields * candidate.elements * candidate.stride;
    return candidate.classCode === classCode && offset >= 0 && offset < codes;
  });
  if (field === undefined) return undefined;
  return { field, id, code, number: Math.floor((sought - field.fieldCode) / field.stride) };
}

/** Leaf and subleaf in the field code of a CPUID value. @public */
export function cpuidOfCode(code: number): readonly [leaf: number, subleaf: number] {
  const bit31 = (code & CPUID_CODE.LEAF_BIT_31) !== 0 ? 0x8000_0000 : 0;
  const leaf = bit31 + ((code >>> CPUID_CODE.LEAF_SHIFT) & CPUID_CODE.LEAF_MASK);
  const subleaf = (code >>> CPUID_CODE.SUBLEAF_SHIFT) & CPUID_CODE.SUBLEAF_MASK;
  return [leaf, (code & CPUID_CODE.NO_SUBLEAF) !== 0 ? NO_SUBLEAF : subleaf];
}

/** Field code of the first half of a CPUID value, by position in the policy table. */
function cpuidCode(index: number): number {
  const { leaf, subleaf } = CPUID_POLICIES[index]!;
  const bit31 = leaf >= 0x8000_0000 ? CPUID_CODE.LEAF_BIT_31 : 0;
  const sub = subleaf === undefined ? CPUID_CODE.NO_SUBLEAF : subleaf << CPUID_CODE.SUBLEAF_SHIFT;
  return bit31 | ((leaf & CPUID_CODE.LEAF_MASK) << CPUID_CODE.LEAF_SHIFT) | sub;
}

function withCode(id: bigint, code: number): bigint {
  return (id & ~CODE_MASK) | BigInt(code);
}

/** Id of the element after one that was read, or all ones. */
function nextElement(space: MetadataSpace, element: MetadataElement, access: MetadataAccess): bigint {
  const { field, id, code, number } = element;
  if (field.classCode === CPUID_CLASS) {
    const next = nextCpuidCode(code);
    if (next !== undefined) return withCode(id, next);
  } else if (number < field.fields * field.elements - 1) {
    return withCode(id, code + field.stride);
  }
  return nextField(space, space.fields.indexOf(field), access);
}

/** A leaf that only reads as zero has no place among the values: after it, iteration leaves them. */
function nextCpuidCode(code: number): number | undefined {
  if ((code & 1) === 0) return code + 1;
  const index = cpuidIndex(...cpuidOfCode(code));
  return index >= 0 && index + 1 < CPUID_POLICIES.length ? cpuidCode(index + 1) : undefined;
}

/** Id of the first readable element after the field at `position`, or all ones. */
function nextField({ fields }: MetadataSpace, position: number, access: MetadataAccess): bigint {
  const next = fields.slice(position + 1).find((field) => field[access][0] !== 0n);
  if (next === undefined) return NO_FIELD;
  return next.classCode === CPUID_CLASS ? withCode(next.id, cpuidCode(0)) : next.id;
}
