import { describe, expect, it } from 'vitest';
import { GLOBAL_FIELDS, globalFieldsOf, NO_FIELD } from '../../../src/abi/global-fields.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { listGlobalFields, readGlobalElement } from '../../../src/module/global-metadata.ts';
import { findRelease, RELEASES } from '../../../src/module/releases.ts';
import { type ModuleMachine, moduleMachine } from '../../support/module-machine.ts';
import { initialise } from '../../support/ready-module.ts';

const MAX_TDMRS = 0x9100_0001_0000_0008n;
const BITMAP_BITS = 0x9100_0000_0000_0013n;
const BUFFER = 0x40_0000;

/** A module of `version` with every LP initialised. */
function initialised(version = '1.5.25'): ModuleMachine {
  return initialise(moduleMachine({}, findRelease(version)!));
}

describe('TDH.SYS.RD', () => {
  it('answers a field with its value and the id of the next', () => {
    expect(initialised().call(TDH.sysRd, { rdx: MAX_TDMRS, r15: 7n })).toEqual({
      rax: 0n,
      rdx: MAX_TDMRS + 1n,
      r8: 64n,
      r15: 7n,
    });
  });

  it('refuses an LP without LP.INIT, unknown ids and reserved bits', () => {
    const fresh = moduleMachine();
    expect(fresh.call(TDH.sysRd, { rdx: MAX_TDMRS })).toEqual({
      rax: STATUS.TDX_SYS_LP_INIT_NOT_DONE,
      rdx: NO_FIELD,
    });
    const host = initialised();
    const wrong = { rax: STATUS.TDX_METADATA_FIELD_ID_INCORRECT, rdx: NO_FIELD };
    expect(host.call(TDH.sysRd, { rdx: 0x1234n })).toEqual(wrong);
    expect(host.call(TDH.sysRd, { rdx: MAX_TDMRS | (1n << 24n), r8: 5n })).toEqual(wrong);
    expect(host.call(TDH.sysRd, { rdx: MAX_TDMRS | (1n << 34n) })).toEqual(wrong);
  });

  it.each(RELEASES.filter(({ version }) => version !== '1.0').map(({ version }) => version))(
    'visits every element of %s once, from the first to the last',
    (version) => {
      const host = initialised(version);
      const first = host.call(TDH.sysRd, { rdx: NO_FIELD });
      expect(first.rax).toBe(STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT);
      const seen: bigint[] = [];
      for (let id = first.rdx!; id !== NO_FIELD; ) {
        seen.push(id);
        const out = host.call(TDH.sysRd, { rdx: id });
        expect(out.rax).toBe(0n);
        id = out.rdx!;
      }
      const expected = globalFieldsOf(version).flatMap(({ id, fields, elements }) =>
        Array.from({ length: fields * elements }, (_, i) => id + BigInt(i)),
      );
      expect(seen).toEqual(expected);
    },
  );

  it('does not know a field that came later', () => {
    expect(initialised('1.5.16').status(TDH.sysRd, { rdx: BITMAP_BITS })).toBe(
      STATUS.TDX_METADATA_FIELD_ID_INCORRECT,
    );
    expect(initialised('1.5.20').call(TDH.sysRd, { rdx: BITMAP_BITS }).r8).toBe(1n);
  });

  it('does not exist in release 1.0', () => {
    const host = initialised('1.0');
    expect(host.status(TDH.sysRd, { rdx: MAX_TDMRS })).toBe(STATUS.TDX_SYS_NOT_READY);
  });

  it('shows a guest fewer fields', () => {
    const { module, machine } = initialised();
    const { regs } = machine.lps[0]!;
    regs.q[2] = MAX_TDMRS;
    expect(readGlobalElement(module, regs, true)).toBe(STATUS.TDX_METADATA_FIELD_NOT_READABLE);
    const visible: bigint[] = [];
    regs.q[2] = NO_FIELD;
    for (
      readGlobalElement(module, regs, true);
      regs.q[2] !== NO_FIELD;
      readGlobalElement(module, regs, true)
    ) {
      visible.push(regs.q[2]!);
    }
    expect(visible).toEqual(GLOBAL_FIELDS.filter(({ guest }) => guest).map(({ id }) => id));
  });
});

/** Reads a list back: id of each sequence's first field and its values. */
function parseList(bytes: Uint8Array): Map<bigint, bigint> {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const values = new Map<bigint, bigint>();
  let at = 8;
  for (let sequence = 0; sequence < view.getUint16(2, true); sequence++) {
    const header = view.getBigUint64(at, true);
    const elements = Number((header >> 34n) & 0xfn) + 1;
    const fields = Number((header >> 38n) & 0x1ffn) + 1;
    const id = header & ~(0x1fffn << 34n);
    at += 8;
    for (let i = 0; i < fields * elements; i++, at += 8)
      values.set(id + BigInt(i), view.getBigUint64(at, true));
  }
  expect(at).toBe(view.getUint16(0, true));
  return values;
}

describe('TDH.SYS.RDALL', () => {
  it.each(['1.5.01', '1.5.05', '1.5.25', '2.0.08'])(
    'gives the same values as SYS.RD in release %s',
    (version) => {
      const host = initialised(version);
      const out = host.call(TDH.sysRdall, { rdx: BigInt(BUFFER), r8: NO_FIELD });
      expect(out).toEqual({ rax: 0n, rdx: BigInt(BUFFER), r8: NO_FIELD });
      const values = parseList(host.machine.memory.read(BUFFER, 4096, 0));
      expect(values.size).toBe(
        globalFieldsOf(version).reduce((sum, field) => sum + field.fields * field.elements, 0),
      );
      for (const [id, value] of values) {
        expect(host.call(TDH.sysRd, { rdx: id }).r8 ?? 0n, `field 0x${id.toString(16)}`).toBe(value);
      }
    },
  );

  it('goes on where it was told, and tells where it stopped', () => {
    const { module } = initialised();
    const whole = listGlobalFields(module, NO_FIELD, 4096);
    const values = new Map<bigint, bigint>();
    let pieces = 0;
    for (let next = NO_FIELD; pieces === 0 || next !== NO_FIELD; pieces++) {
      const piece = listGlobalFields(module, next, 200);
      for (const [id, value] of parseList(piece.bytes)) values.set(id, value);
      expect(piece.status).toBe(piece.next === NO_FIELD ? 0n : STATUS.TDX_METADATA_LIST_OVERFLOW);
      next = piece.next;
    }
    expect(pieces).toBeGreaterThan(10);
    expect(values).toEqual(parseList(whole.bytes));
  });

  it('refuses private and misaligned buffers and ids that begin no field', () => {
    const host = initialised();
    const invalid = STATUS.TDX_OPERAND_INVALID | 2n;
    const status = (rdx: bigint, r8 = NO_FIELD): bigint => host.status(TDH.sysRdall, { rdx, r8 });
    expect(status(BigInt(BUFFER) + 8n)).toBe(invalid);
    expect(status(BigInt(BUFFER) | (33n << 46n))).toBe(invalid);
    expect(status(0x3_c000_0000n)).toBe(invalid);
    expect(status(BigInt(BUFFER), 0x9900_0003_0000_0501n)).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
    expect(status(BigInt(BUFFER), MAX_TDMRS ^ (1n << 32n))).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
  });
});
