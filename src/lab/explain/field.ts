/** Explains a metadata field, by identifier or name. */
import { hex } from '../../abi/address.ts';
import {
  type FieldIdParts,
  fieldIdParts,
  GLOBAL_FIELDS,
  type GlobalField,
  NO_FIELD,
} from '../../abi/global-fields.ts';
import type { Explanation, Fact } from './explanation.ts';
import { GLOBAL_FIELD_NOTES } from './global-field-notes.ts';
import { FIELD_CLASSES, TD_FIELDS, type TdField } from './td-fields.ts';

const CONTEXTS = ['the system: TDH.SYS.RD', 'a TD: TDH.MNG.RD, TDG.VM.RD', 'a VCPU: TDH.VP.RD, TDG.VP.RD'];
/** Bits of an identifier that no field sets. */
const RESERVED = 0x4080_0000_ff00_0000n | (0x3n << 47n) | (1n << 49n);

/** True when `id` can be an identifier: context and class are known, reserved bits are clear. @internal */
export function looksLikeField(id: bigint): boolean {
  if (id === NO_FIELD) return true;
  if (id < 1n << 32n || (id & RESERVED) !== 0n) return false;
  const parts = fieldIdParts(id);
  return FIELD_CLASSES[parts.contextCode]?.[parts.classCode] !== undefined;
}

/** Fields whose identifier is exactly this one. @internal */
export function fieldsExactly(id: bigint): readonly Explanation[] {
  return fieldsNumbered(id).filter(({ data }) => data.linuxId === id || data.exact === true);
}

/** Fields known by this identifier, allowing for other size and count bits than the table's. @internal */
export function fieldsNumbered(id: bigint): readonly Explanation[] {
  if (id === NO_FIELD) return [explainNoField()];
  if (!looksLikeField(id)) return [];
  const found = [
    ...GLOBAL_FIELDS.filter((field) => holds(field, id)).map((field) => explainGlobal(field, id)),
    ...TD_FIELDS.filter((field) => field.linuxId === id || holds(field, id)).map((field) =>
      explainTd(field, id),
    ),
  ];
  // Linux writes some TD fields without their context bits; the size then tells which of two fields is meant.
  const sized = found.filter((_, i, all) => all.length === 1 || sameSize(all[i]!, id));
  return sized.length > 0 ? sized : found;
}

/** Fields called `word`, with or without an index such as `CMR_BASE[3]`. @internal */
export function fieldsNamed(word: string): readonly Explanation[] {
  const match = /^([A-Z0-9_]+)(?:\[(\d{1,4})\])?$/.exec(word.toUpperCase());
  if (match === null) return [];
  const index = Number(match[2] ?? 0);
  const named = (field: { name: string; fields?: number }): boolean =>
    field.name === match[1] && index < (field.fields ?? 1);
  return [
    ...GLOBAL_FIELDS.filter(named).map((field) => explainGlobal(field, idAt(field, index))),
    ...TD_FIELDS.filter(named).map((field) => explainTd(field, idAt(field, index))),
  ];
}

/** Explains an identifier that no table names, by its bits. @internal */
export function explainFieldBits(id: bigint): Explanation {
  return explanation(
    id,
    `unnamed field ${hex(id)}`,
    'A metadata field that this table does not name.',
    [],
    {},
  );
}

function idAt(field: { id: bigint; elements?: number }, index: number): bigint {
  return field.id + BigInt(index * (field.elements ?? 1));
}

function holds(field: { id: bigint; fields?: number; elements?: number }, id: bigint): boolean {
  const [first, asked] = [fieldIdParts(field.id), fieldIdParts(id)];
  const offset = asked.fieldCode - first.fieldCode;
  return (
    first.contextCode === asked.contextCode &&
    first.classCode === asked.classCode &&
    offset >= 0 &&
    offset < (field.fields ?? 1) * (field.elements ?? 1)
  );
}

/** True when `id` is the table's identifier plus a whole number of fields and elements. */
function isExact(field: { id: bigint }, id: bigint): boolean {
  return id >> 24n === field.id >> 24n;
}

function sameSize(found: Explanation, id: bigint): boolean {
  return found.data.linuxId === id || found.data.elementBytes === fieldIdParts(id).elementBytes;
}

function explainGlobal(field: GlobalField, id: bigint): Explanation {
  const facts: Fact[] = [];
  const note = GLOBAL_FIELD_NOTES[field.name];
  if (note !== undefined) facts.push({ label: 'host path', text: note });
  facts.push({ label: 'since', text: `release ${field.since}` });
  const summary = `A global metadata field${field.guest ? ', readable by TDs too' : ''}.`;
  const name = withIndex(field, id);
  return explanation(id, name, summary, facts, {
    name: field.name,
    canonicalId: field.id,
    exact: isExact(field, id),
    elementBytes: field.elementBytes,
    since: field.since,
    guest: field.guest,
  });
}

function explainTd(field: TdField, id: bigint): Explanation {
  const facts: Fact[] = [];
  if (field.linuxId === id)
    facts.push({ label: 'note', text: `Linux writes it this way; in full it is ${hex(field.id)}` });
  const parts = fieldIdParts(field.id);
  const canonical = field.linuxId === id ? field.id : id;
  return explanation(
    canonical,
    withIndex(field, canonical),
    `${field.text[0]!.toUpperCase()}${field.text.slice(1)}.`,
    facts,
    {
      name: field.name,
      canonicalId: field.id,
      exact: isExact(field, id),
      ...(field.linuxId === undefined ? {} : { linuxId: field.linuxId }),
      elementBytes: parts.elementBytes,
    },
  );
}

function withIndex(
  field: { name: string; id: bigint; fields?: number; elements?: number },
  id: bigint,
): string {
  const { fields = 1, elements = 1 } = field;
  const offset = fieldIdParts(id).fieldCode - fieldIdParts(field.id).fieldCode;
  const index = fields === 1 ? '' : `[${Math.floor(offset / elements)}]`;
  return `${field.name}${index}${elements === 1 ? '' : `[${offset % elements}]`}`;
}

function explainNoField(): Explanation {
  return {
    kind: 'field',
    name: 'no field',
    number: hex(NO_FIELD),
    summary: 'All ones: asks TDH.SYS.RD for the first field, and follows the last one in an iteration.',
    facts: [],
    cases: [],
    data: { id: NO_FIELD, exact: true },
    parts: [],
  };
}

function explanation(
  id: bigint,
  name: string,
  summary: string,
  facts: readonly Fact[],
  data: Record<string, unknown>,
): Explanation {
  const parts = fieldIdParts(id);
  return {
    kind: 'field',
    name,
    number: `0x${id.toString(16).padStart(16, '0')}`,
    summary,
    facts: [
      { label: 'belongs to', text: CONTEXTS[parts.contextCode] ?? `context ${parts.contextCode}` },
      { label: 'class', text: `${parts.classCode} ${className(parts)}` },
      { label: 'field code', text: hex(parts.fieldCode) },
      { label: 'size', text: `${parts.elementBytes} byte${parts.elementBytes === 1 ? '' : 's'} per element` },
      ...(parts.lastElement === 0 ? [] : [{ label: 'elements', text: `${parts.lastElement + 1} per field` }]),
      ...(parts.lastField === 0 ? [] : [{ label: 'sequence', text: `${parts.lastField + 1} fields` }]),
      {
        label: 'bit 63',
        text: parts.nonArchitectural ? 'set: may change between releases' : 'clear: architectural',
      },
      ...facts,
    ],
    cases: [],
    data: { id, ...parts, className: className(parts), ...data },
    parts: [],
  };
}

function className(parts: FieldIdParts): string {
  return FIELD_CLASSES[parts.contextCode]?.[parts.classCode] ?? 'not in the table';
}
