import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { MetadataField } from '../../src/abi/metadata-field.ts';
import { TD_FIELDS } from '../../src/abi/td-fields.ts';
import { L2_VMCS_CLASSES, VCPU_FIELDS, VMCS_CLASS } from '../../src/abi/vcpu-fields.ts';

const FACTS = '../shared/facts/td_metadata.json';
/** Attribute bits of an address: of the host, of the guest, private, shared. */
const HPA = 1;
const GPA = 2;
const PRIVATE = 4;
const SHARED = 8;

interface Row {
  readonly field_id: string;
  readonly num_of_fields: number;
  readonly num_of_elem: number;
  readonly offset?: number;
  readonly attributes?: number;
  readonly [mask: `${string}_mask`]: string | undefined;
}

const masks = (row: Row, side: string): readonly [bigint, bigint] => [
  BigInt(row[`${side}_rd_mask`] ?? '0'),
  BigInt(row[`${side}_wr_mask`] ?? '0'),
];

function addressOf({ attributes = 0 }: Row): MetadataField['address'] {
  const has = (bits: number): boolean => (attributes & bits) === bits;
  if (has(HPA | SHARED)) return 'sharedHpa';
  return has(GPA | PRIVATE) ? 'privateGpa' : undefined;
}

/** What of a field can be compared; where an address is only read, it does not matter that it is one. */
function digest(fields: readonly MetadataField[]): unknown[] {
  return fields.map(({ id, fields: count, elements, offset, host, debug, guest, service, address }) => {
    const isWritable = [host, debug, guest].some(([, write]) => write !== 0n);
    const sides = { host, debug, guest, service };
    return { id, count, elements, offset, ...sides, address: isWritable ? address : undefined };
  });
}

function digestRows(rows: readonly Row[], guestSide = 'guest'): unknown[] {
  return rows.map((row) => {
    const sides = {
      host: masks(row, 'prod'),
      debug: masks(row, 'dbg'),
      guest: masks(row, guestSide),
      service: masks(row, 'migtd'),
    };
    const isWritable = Object.values(sides).some(([, write]) => write !== 0n);
    return {
      id: BigInt(row.field_id),
      count: row.num_of_fields,
      elements: row.num_of_elem,
      offset: row.offset ?? 0,
      ...sides,
      address: isWritable ? addressOf(row) : undefined,
    };
  });
}

/** A field as it appears under class code `classCode`. */
const inClass =
  (classCode: number) =>
  (row: Row): Row => ({
    ...row,
    field_id: `0x${((BigInt(row.field_id) & ~(0x3fn << 56n)) | (BigInt(classCode) << 56n)).toString(16)}`,
  });

describe.skipIf(!existsSync(FACTS))(
  'the metadata tables, against the facts (skipped without ../shared)',
  () => {
    const { tables } = existsSync(FACTS)
      ? (JSON.parse(readFileSync(FACTS, 'utf8')) as { tables: Record<string, readonly Row[]> })
      : { tables: {} };

    it('has every field of TDR and TDCS with its place and masks', () => {
      expect(digest(TD_FIELDS)).toEqual(digestRows(tables.tdr_tdcs!));
    });

    it('has every field of the VMCSs and of the TDVPS, those of an L2 VM at its place in the order', () => {
      const l2 = new Map(
        L2_VMCS_CLASSES.map((classCode) => [
          `0x${((BigInt(classCode) << 56n) | (2n << 52n)).toString(16)}`,
          classCode,
        ]),
      );
      const expected = tables.tdvps!.flatMap((row) => {
        const classCode = l2.get(`0x${BigInt(row.field_id).toString(16)}`);
        return classCode === undefined
          ? digestRows([row])
          : digestRows(tables.l2_vmcs!.map(inClass(classCode)), 'l1_vmm');
      });
      expect(digest(VCPU_FIELDS)).toEqual([...digestRows(tables.td_vmcs!), ...expected]);
    });
  },
);

describe('the metadata tables', () => {
  const everyField = [...TD_FIELDS, ...VCPU_FIELDS];

  it('names each element once', () => {
    for (const fields of [TD_FIELDS, VCPU_FIELDS]) {
      const codes = fields.flatMap(({ classCode, fieldCode, stride, fields: count, elements }) =>
        Array.from({ length: count * elements }, (_, i) => `${classCode}:${fieldCode + i * stride}`),
      );
      expect(new Set(codes).size).toBe(codes.length);
    }
  });

  it('goes up in class and field code, as iteration does', () => {
    for (const fields of [TD_FIELDS, VCPU_FIELDS]) {
      for (const [i, next] of fields.entries()) {
        const last = fields[i - 1];
        if (last?.classCode === next.classCode) expect(next.fieldCode).toBeGreaterThan(last.fieldCode);
        else expect(next.classCode).toBeGreaterThan(last?.classCode ?? -1);
      }
    }
  });

  it('lets nobody write what they cannot read, and a production TD shows no more than a debug TD', () => {
    for (const { name, host, debug, guest, service } of everyField) {
      // Bit 13 of IA32_DEBUGCTL is the platform's: what a TD writes there is dropped.
      const dropped = name === 'IA32_DEBUGCTL' ? 1n << 13n : 0n;
      for (const [read, write] of [host, debug, guest, service]) expect(write & ~read & ~dropped).toBe(0n);
      expect(host[0] & ~debug[0]).toBe(0n);
      expect(host[1] & ~debug[1]).toBe(0n);
    }
  });

  it('keeps the guest state of a production TD from its host', () => {
    const isGuestState = ({ classCode }: MetadataField): boolean => classCode >= 16 && classCode <= 19;
    const shown = VCPU_FIELDS.filter((field) => isGuestState(field) && field.host[0] !== 0n);
    expect(shown.map(({ name }) => name)).toEqual(['VCPU_STATE_DETAILS']);
    const vmcs = VCPU_FIELDS.filter(({ classCode, fieldCode }) => {
      const isGuestArea = (fieldCode & 0xc00) === 0x800;
      return isGuestArea && (classCode === VMCS_CLASS || L2_VMCS_CLASSES.includes(classCode));
    });
    expect(vmcs.length).toBeGreaterThan(200);
    for (const field of vmcs) expect(field.host).toEqual([0n, 0n]);
  });
});
