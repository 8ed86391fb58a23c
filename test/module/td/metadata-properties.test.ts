import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TDG, TDH } from '../../../src/abi/leaves.ts';
import type { MetadataField } from '../../../src/abi/metadata-field.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { CPUID_CLASS, L2_SEPT_ROOT_CLASSES, TD_FIELDS } from '../../../src/abi/td-fields.ts';
import { L2_VMCS_CLASSES, VCPU_FIELDS } from '../../../src/abi/vcpu-fields.ts';
import { guestCalls } from '../../support/guest-call.ts';
import { type ReadyTd, readyTd } from '../../support/ready-td.ts';

const ALL = 0xffff_ffff_ffff_ffffn;
const DEBUG = 1n;
const VERSION_1 = 1 << 16;
const L2_VMS = 1;

/** Fields with a rule of their own for what may be written or what is stored; other tests have them. */
const RULED: ReadonlySet<string> = new Set([
  'HP_LOCK_TIMEOUT',
  'TD_CTLS',
  'FEATURE_PARAVIRT_CTLS',
  'Posted-interrupt notification vector',
  'Pin-Based VM-Execution Controls',
  'Primary Processor-Based VM-Execution Controls',
  'Secondary Processor-Based VM-Execution Controls',
  'Tertiary Processor-Based VM-Execution Controls',
  'IA32_DEBUGCTL',
  'IA32_EFER',
  'EPTP',
  'PLE_GAP',
  'PLE_Window',
  'CR0 Guest/Host Mask',
  'CR4 Guest/Host Mask',
  'CR0 Read Shadow',
  'CR4 Read Shadow',
  'Guest CR0',
  'Guest CR3',
  'Guest CR4',
  'XBUFF',
  'IA32_MISC_ENABLE',
  'IA32_SPEC_CTRL',
  'L2_MSR_BITMAPS_1',
  'TSC_DEADLINE',
]);

/** Who accesses: the leaves, and the masks that are theirs. */
interface Side {
  readonly name: string;
  readonly access: 'host' | 'debug' | 'guest';
  readonly scope: 'td' | 'vcpu';
}

const SIDES: readonly Side[] = (['host', 'debug', 'guest'] as const).flatMap((access) =>
  (['td', 'vcpu'] as const).map((scope) => ({ name: `${access} on a ${scope}`, access, scope })),
);

interface Access {
  readonly read: (id: bigint) => { readonly status: bigint; readonly value: bigint; readonly next: bigint };
  readonly write: (
    id: bigint,
    value: bigint,
    mask: bigint,
  ) => { readonly status: bigint; readonly old: bigint };
}

function accessOf({ access, scope }: Side): Access {
  const t = readyTd({ runnable: true, l2Vms: L2_VMS, attributes: access === 'debug' ? DEBUG : 0n });
  return access === 'guest' ? guestAccess(t, scope) : hostAccess(t, scope);
}

function hostAccess(t: ReadyTd, scope: Side['scope']): Access {
  const [rd, wr, rcx] = scope === 'td' ? [TDH.mngRd, TDH.mngWr, t.tdr] : [TDH.vpRd, TDH.vpWr, t.tdvpr];
  return {
    read: (id) => {
      const { rax, r8 = 0n, rdx = 0n } = t.call(rd | VERSION_1, { rcx, rdx: id, r8: 0x55n });
      return { status: rax!, value: r8, next: rdx };
    },
    write: (id, value, mask) => {
      const { rax, r8 = 0n } = t.call(wr, { rcx, rdx: id, r8: value, r9: mask });
      return { status: rax!, old: r8 };
    },
  };
}

function guestAccess(t: ReadyTd, scope: Side['scope']): Access {
  const { call } = guestCalls(t);
  const [rd, wr] = scope === 'td' ? [TDG.vmRd | VERSION_1, TDG.vmWr] : [TDG.vpRd, TDG.vpWr];
  return {
    read: (id) => {
      const { rax, r8 = 0n, rdx = 0n } = call(rd, { rdx: id, r8: 0x55n });
      return { status: rax!, value: r8, next: rdx };
    },
    write: (id, value, mask) => {
      const { rax, r8 = 0n } = call(wr, { rdx: id, r8: value, r9: mask });
      return { status: rax!, old: r8 };
    },
  };
}

/** Fields of the scope that the TD has; CPUID values have ids of their own kind. */
function fieldsOf({ scope }: Side): readonly MetadataField[] {
  const absent = new Set([...L2_SEPT_ROOT_CLASSES.slice(L2_VMS), CPUID_CLASS]);
  if (scope === 'td') return TD_FIELDS.filter(({ classCode }) => !absent.has(classCode));
  return VCPU_FIELDS.filter(({ classCode }) => classCode < L2_VMCS_CLASSES[L2_VMS]!);
}

const arbitraryBits = fc.oneof(
  fc.bigInt(0n, ALL),
  fc.constantFrom(0n, 1n, 0xffn, 0xffffn, 0xffff_ffffn, ALL, 1n << 63n),
);

/** A field with the id of one of its elements. */
function arbitraryElement(fields: readonly MetadataField[]): fc.Arbitrary<readonly [MetadataField, bigint]> {
  return fc
    .tuple(fc.constantFrom(...fields), fc.nat(4095))
    .map(([field, pick]) => [
      field,
      field.id + BigInt((pick % (field.fields * field.elements)) * field.stride),
    ]);
}

describe.each(SIDES)('metadata: $name', (side) => {
  const fields = fieldsOf(side);
  const plain = fields.filter(({ name, address }) => !RULED.has(name) && address === undefined);

  it('reads back what was written under the mask, and nothing else', () => {
    const { read, write } = accessOf(side);
    fc.assert(
      fc.property(arbitraryElement(plain), arbitraryBits, arbitraryBits, ([field, id], value, mask) => {
        const [readable, writable] = field[side.access];
        const before = read(id);
        const { status, old } = write(id, value, mask);
        const changing = writable & mask;
        const forbidden = mask & ~writable;
        const after = read(id);
        if (changing === 0n) {
          expect([status, old]).toEqual([STATUS.TDX_METADATA_FIELD_NOT_WRITABLE, 0n]);
          expect(after).toEqual(before);
        } else if ((value & forbidden) !== (before.value & forbidden)) {
          expect([status, old]).toEqual([STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID, 0n]);
          expect(after).toEqual(before);
        } else {
          expect([status, old]).toEqual([0n, before.value]);
          expect(after.value).toBe(((before.value & ~changing) | (value & changing)) & readable);
        }
      }),
      { numRuns: 1500 },
    );
  });

  it('shows no bit outside the read mask of the side', () => {
    const { read } = accessOf(side);
    fc.assert(
      fc.property(arbitraryElement(fields), ([field, id]) => {
        const [readable] = field[side.access];
        const { status, value, next } = read(id);
        if (readable === 0n) {
          expect([status, value, next]).toEqual([STATUS.TDX_METADATA_FIELD_NOT_READABLE, 0n, ALL]);
        } else {
          expect(status).toBe(0n);
          expect(value & ~readable).toBe(0n);
          expect(next).not.toBe(id);
        }
      }),
      { numRuns: 1500 },
    );
  });

  it('answers any operands with a status, and a read changes nothing', () => {
    const { read, write } = accessOf(side);
    const arbitraryId = fc.oneof(
      fc.bigInt(0n, ALL),
      // An id of the table with some bits changed.
      fc
        .tuple(arbitraryElement(fields), fc.array(fc.nat(63), { maxLength: 3 }))
        .map(([[, id], bits]) => bits.reduce((changed, bit) => changed ^ (1n << BigInt(bit)), id)),
    );
    fc.assert(
      fc.property(arbitraryId, arbitraryBits, arbitraryBits, (id, value, mask) => {
        const first = read(id);
        expect(read(id)).toEqual(first);
        if (first.status !== 0n) expect(first.value).toBe(0n);
        const { status, old } = write(id, value, mask);
        expect(status === 0n || status >> 63n === 1n).toBe(true);
        if (status !== 0n) expect(old).toBe(0n);
      }),
      { numRuns: 3000 },
    );
  });
});

it('leaves out of the first property only fields that are there', () => {
  const names = new Set([...TD_FIELDS, ...VCPU_FIELDS].map(({ name }) => name));
  expect([...RULED].filter((name) => !names.has(name))).toEqual([]);
});
