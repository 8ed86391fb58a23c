import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ERRNO, type ErrnoName } from '../../../src/abi/errno.ts';
import { GLOBAL_FIELDS } from '../../../src/abi/global-fields.ts';
import { InputError } from '../../../src/abi/input-error.ts';
import { LEAVES } from '../../../src/abi/leaves.ts';
import { SEAMLDR_STATUS } from '../../../src/abi/seamldr-status.ts';
import { SW_STATUS } from '../../../src/abi/status.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { explain } from '../../../src/lab/explain/explain.ts';
import type { Explanation } from '../../../src/lab/explain/explanation.ts';
import { TD_FIELDS } from '../../../src/lab/explain/td-fields.ts';

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

/** All readings of one word. */
function read(word: string): readonly Explanation[] {
  const [explained] = explain([word]);
  return explained!.readings;
}

const fact = (explanation: Explanation, label: string): string | undefined =>
  explanation.facts.find((candidate) => candidate.label === label)?.text;

describe('a status', () => {
  const named = Object.entries({ ...STATUS, ...SW_STATUS });

  it.each(named)('%s is explained by name and by number', (name, value) => {
    const [byName] = read(name);
    expect(byName).toMatchObject({ kind: 'status', name });
    const byNumber = read(hex(value)).find(({ kind }) => kind === 'status');
    expect(byNumber).toMatchObject({ name });
    for (const explanation of [byName!, byNumber!]) {
      expect(explanation.summary).not.toBe('');
      expect(explanation.cases).toHaveLength(1);
      expect(fact(explanation, 'recovery')).toBeDefined();
    }
  });

  it('P-SEAMLDR statuses are found beside the leaves of the same number', () => {
    for (const [name, value] of Object.entries(SEAMLDR_STATUS)) {
      expect(read(name)[0]).toMatchObject({ kind: 'status', name });
      expect(read(hex(value)).map((reading) => reading.name)).toContain(name);
    }
  });

  it('is taken in every spelling of its number', () => {
    const value = STATUS.TDX_SYS_NOT_READY;
    for (const word of ['0xC000050500000000', 'c000050500000000', `${value}`, `${value - (1n << 64n)}`]) {
      expect(read(word)[0]).toMatchObject({ kind: 'status', name: 'TDX_SYS_NOT_READY' });
    }
    expect(read('8000020000000000')[0]).toMatchObject({ name: 'TDX_OPERAND_BUSY' });
    expect(read('sys_not_ready')[0]).toMatchObject({ name: 'TDX_SYS_NOT_READY' });
  });

  it('says what its low bits mean, by class', () => {
    const detail = (value: bigint): string | undefined => fact(read(hex(value))[0]!, 'detail');
    expect(detail(STATUS.TDX_OPERAND_INVALID)).toContain('RAX');
    expect(detail(STATUS.TDX_OPERAND_INVALID | 69n)).toContain('CPUID_CONFIG');
    expect(detail(STATUS.TDX_OPERAND_BUSY | 186n)).toContain('KeyID ownership table');
    expect(detail(STATUS.TDX_OPERAND_BUSY)).toBeUndefined();
    expect(detail(STATUS.TDX_PAMT_OVERLAP | 0x05_0103n)).toBe(
      'TDMR number 3, its PAMT for 2 MiB pages, overlaps TDMR number 5 or its PAMT',
    );
    expect(detail(STATUS.TDX_INVALID_RESERVED_IN_TDMR | 0x0902n)).toBe(
      'TDMR number 2, its reserved area number 9',
    );
    expect(detail(STATUS.TDX_INCONSISTENT_MSR | 0x3bn)).toBe('MSR 0x3b IA32_TSC_ADJUST');
    expect(detail(STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED | 0x15n)).toBe('CPUID leaf 0x15');
    expect(detail(STATUS.TDX_OP_STATE_INCORRECT | 2n)).toContain('RUNNABLE');
    expect(detail(STATUS.TDX_VCPU_STATE_INCORRECT | 8n)).toContain('DISABLED');
    expect(detail(STATUS.TDX_NON_RECOVERABLE_TD | 48n)).toContain('EPT violation');
    expect(detail(STATUS.TDX_UPDATE_COMPATIBILITY_SENSITIVE | 0x3_0000n)).toBe('3 TDs are being built');
  });

  it('decodes its bits for programs', () => {
    expect(read(hex(STATUS.TDX_INVALID_PAMT | 0x0207n))[0]!.data).toMatchObject({
      class: 'PHYS_MEMORY_CONFIG',
      error: true,
      nonRecoverable: true,
      fatal: false,
      hostRecoverabilityHint: false,
      tdmr: 7,
      pamtLevel: 2,
      recovery: 'input',
    });
  });

  it('is named when a TD exit or an older table sets other top bits', () => {
    const [explanation] = read('0x4000000200000000');
    expect(explanation).toMatchObject({ name: 'TDX_NON_RECOVERABLE_TD' });
    expect(fact(explanation!, 'note')).toContain('0x6000000200000000');
  });

  it('is explained by its class when it has no name', () => {
    expect(read('0xc000097700000000')[0]!.summary).toContain('the platform');
  });
});

describe('a leaf', () => {
  it.each(LEAVES.map((leaf) => [leaf.name, leaf] as const))('%s is explained', (name, leaf) => {
    const rax = leaf.side === 'seamldr' ? (1n << 63n) | BigInt(leaf.number) : BigInt(leaf.number);
    for (const word of [name, name.toLowerCase().replaceAll('.', '_'), hex(rax)]) {
      const found = read(word).find((reading) => reading.name === name);
      expect(found?.kind).toBe('leaf');
      expect(found?.summary).toMatch(/^[A-Z].+\.$/);
    }
  });

  it('is found by its name in source', () => {
    expect(read('sysRd').map(({ name }) => name)).toEqual(['TDH.SYS.RD', 'TDG.SYS.RD']);
  });

  it('has a version in bits 23:16', () => {
    expect(read('0x10021')[0]).toMatchObject({ name: 'TDH.SYS.INIT', data: { version: 1 } });
  });
});

describe('a number with several readings', () => {
  it('gives all of them, an errno before a leaf in decimal', () => {
    expect(read('28').map(({ name }) => name)).toEqual(['ENOSPC', 'TDH.PHYMEM.PAGE.RECLAIM']);
    expect(read('0x1c').map(({ name }) => name)).toEqual(['TDH.PHYMEM.PAGE.RECLAIM']);
    expect(read('34').map(({ name }) => name)).toEqual(['TDH.SYS.RD']);
    expect(read('0x8000000000000000').map(({ name }) => name)).toEqual([
      'SEAMLDR.INFO',
      'PSEAMLDR_EBADPARAM',
      'TDVMCALL INVALID_OPERAND',
    ]);
    expect(read('0x8000000000000002').map(({ name }) => name)).toEqual(['TDVMCALL ALIGN_ERROR']);
    expect(read('0x8000000000000003').map(({ name }) => name)).toEqual([
      'PSEAMLDR_EBADCALL',
      'TDVMCALL SUBFUNC_UNSUPPORTED',
    ]);
  });

  it('is no success while it has an error bit', () => {
    for (const word of ['0x800000000000000d', '0xc000000000000000', '0x4000000000000000']) {
      expect(read(word)[0]).toMatchObject({ name: 'unnamed status of class GENERAL' });
    }
  });

  it('is a TD exit when nothing else has the number', () => {
    expect(read('77')[0]).toMatchObject({ name: 'a TD exit', data: { exitReason: 77 } });
  });
});

describe('a metadata field', () => {
  it.each(GLOBAL_FIELDS.map((field) => [field.name, field] as const))('%s is explained', (name, field) => {
    expect(read(name).map(({ data }) => data.canonicalId)).toContain(field.id);
    for (let i = 0; i < field.fields * field.elements; i++) {
      const [explanation] = read(hex(field.id + BigInt(i)));
      expect(explanation).toMatchObject({ kind: 'field', data: { name } });
    }
  });

  it.each(TD_FIELDS.map((field) => [field.name, field] as const))(
    '%s of a TD is explained',
    (name, field) => {
      for (const id of [field.id, field.linuxId ?? field.id]) {
        expect(read(hex(id))[0]).toMatchObject({ kind: 'field', data: { name, canonicalId: field.id } });
      }
    },
  );

  it('shows which field and element an identifier names', () => {
    expect(read('0x9900000300000503')[0]!.name).toBe('CPUID_CONFIG_VALUES[1][1]');
    expect(read('CMR_BASE[3]')[0]).toMatchObject({ number: '0x9000000300000083' });
    expect(() => explain(['CMR_BASE[32]'])).toThrow(InputError);
  });

  it('without a name is decoded bit by bit', () => {
    const [explanation] = read('0x9110000300000099');
    expect(explanation).toMatchObject({
      kind: 'field',
      data: { classCode: 17, fieldCode: 0x99, elementBytes: 8 },
    });
  });
});

describe('an errno', () => {
  it.each(Object.entries(ERRNO))('%s names a place, a cause and a remedy', (name, number) => {
    for (const word of [name, `-${name}`, `-${number}`, `${number}`]) {
      const [explanation] = read(word);
      expect(explanation).toMatchObject({ kind: 'errno', name: name as ErrnoName });
      expect(explanation!.cases.length).toBeGreaterThan(0);
      for (const place of explanation!.cases) expect(place.where).toBeTruthy();
    }
  });
});

describe('words', () => {
  it('without blanks that make one line are one line', () => {
    const words = ['SEAMCALL', '(0x22)', 'failed:', '0xc000050500000000'];
    expect(explain(words)).toHaveLength(1);
    expect(explain(words)[0]!.input).toBe(words.join(' '));
    expect(explain(['0x22', '0xc000050500000000'])).toHaveLength(1);
  });

  it('that make none are explained one by one, and lines in one word too', () => {
    expect(explain(['ENOSPC', 'TDH.SYS.RD', 'CMR_BASE']).map(({ input }) => input)).toHaveLength(3);
    expect(explain(['virt/tdx: module initialized', 'HKID 33 leaked'])).toHaveLength(2);
    expect(explain(['virt/tdx: module initialized\n\nHKID 33 leaked\n'])).toHaveLength(2);
  });

  it('that nobody knows are refused in one sentence, with names that are near', () => {
    expect(() => explain(['frobnicate'])).toThrow(InputError);
    expect(() => explain(['NOT_READ'])).toThrow(/did you mean TDX_SYS_NOT_READY/);
    expect(() => explain([''])).toThrow(InputError);
    expect(() => explain(['x'.repeat(10_000)])).toThrow(/^.{0,300}$/);
  });
});

describe('anything at all', () => {
  const check = (words: string[]): void => {
    try {
      const explained = explain(words);
      expect(explained.length).toBeGreaterThan(0);
      for (const { readings } of explained) expect(readings.length).toBeGreaterThan(0);
    } catch (error) {
      expect(error).toBeInstanceOf(InputError);
      expect((error as Error).message).not.toContain('\n');
    }
  };

  it('is explained or refused with InputError', () => {
    fc.assert(fc.property(fc.array(fc.string({ unit: 'binary' }), { minLength: 1, maxLength: 4 }), check));
    const fragment = fc.constantFrom(
      'SEAMCALL',
      '(0x22)',
      'failed:',
      'TDMR [0x0, 0x1)',
      'CMR',
      '-',
      '0x',
      'tdx:',
      'HKID',
      'errno',
      '[',
      ')',
      '\n',
      '__proto__',
      'constructor',
    );
    fc.assert(fc.property(fc.array(fragment, { minLength: 1, maxLength: 8 }), check));
  });

  it('64-bit numbers are explained or refused with InputError, and statuses never refused', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (value) => {
        check([hex(value)]);
        check([`${value}`]);
      }),
    );
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.entries(STATUS)),
        fc.nat(0xffff_ffff),
        ([name, value], detail) => {
          fc.pre(value >> 60n !== 0n);
          expect(read(hex(value | BigInt(detail)))[0]).toMatchObject({ kind: 'status', name });
        },
      ),
    );
  });
});
