import { describe, expect, it } from 'vitest';
import { CPUID_POLICIES } from '../../../../src/abi/cpuid-policy.ts';
import { NO_FIELD } from '../../../../src/abi/global-fields.ts';
import { TDG, TDH } from '../../../../src/abi/leaves.ts';
import { OPERAND } from '../../../../src/abi/operands.ts';
import { R8, R10, R11, R12, R13, RAX, RDX } from '../../../../src/abi/registers.ts';
import { withOperand } from '../../../../src/abi/status.ts';
import { STATUS } from '../../../../src/abi/status-codes.ts';
import { TD_FIELDS } from '../../../../src/abi/td-fields.ts';
import { TDCS } from '../../../../src/module/td/layout.ts';
import { type ExitEffect, guestExits, statusOf } from '../../../support/guest-exits.ts';
import { anotherTd, type ReadyTd } from '../../../support/ready-td.ts';
import { ignoring, type ServedTd, servedTd, uuid } from '../../../support/service-tds.ts';

const ALL = 0xffff_ffff_ffff_ffffn;
const idOf = (name: string): bigint => TD_FIELDS.find((field) => field.name === name)!.id;
const RTMRS = ignoring(6, 7, 8, 9);

interface Service extends ServedTd {
  readonly handle: bigint;
  readonly rd: (id: bigint, operands?: object) => ExitEffect;
  readonly wr: (id: bigint, value: bigint, mask?: bigint) => ExitEffect;
}

/** A migration TD that is bound to its target and runs. */
function bound(attributes = 0n): Service {
  const tds = servedTd();
  const handle = tds.bind({ r10: attributes }).rcx!;
  const guest = guestExits(tds.service);
  const [r10, r11, r12, r13] = uuid(tds.target);
  const own = { rcx: handle, r10, r11, r12, r13 };
  return {
    ...tds,
    handle,
    rd: (rdx, operands = {}) => guest.tdcall(TDG.servtdRd, { ...own, rdx, ...operands }),
    wr: (rdx, r8, r9 = ALL) => guest.tdcall(TDG.servtdWr, { ...own, rdx, r8, r9 }),
  };
}

/** What the host sees of a service TD whose binding does not hold. */
function trap(effect: ExitEffect): readonly [host: bigint, why: bigint] {
  expect(effect.outcome).toBe('exited');
  return [effect.regs[RAX]!, effect.regs[RDX]!];
}

/** Extends RTMR 0 of a TD that runs. */
function extendRtmr(t: ReadyTd): void {
  t.addTables(0, 0);
  t.on(TDH.memPageAug, 0, 0, { r8: t.page() });
  const guest = guestExits(t);
  expect(statusOf(guest.tdcall(TDG.memPageAccept, {}))).toBe(0n);
  expect(statusOf(guest.tdcall(TDG.mrRtmrExtend, {}))).toBe(0n);
}

describe('TDG.SERVTD.RD', () => {
  it('visits every element of the target that a migration TD may read, once', () => {
    const { rd, target } = bound();
    const first = rd(NO_FIELD);
    expect(statusOf(first)).toBe(STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT);
    let seen = 0;
    for (let id = first.regs[RDX]!; id !== NO_FIELD; seen++) {
      const { regs } = rd(id);
      expect(regs[RAX]).toBe(0n);
      if (id === idOf('TD_UUID')) expect(regs[R8]).toBe(uuid(target)[0]);
      id = regs[RDX]!;
    }
    const counts = TD_FIELDS.filter(({ service }) => service[0] !== 0n).map(({ name, fields, elements }) =>
      name === 'CPUID_VALUES' ? 2 * CPUID_POLICIES.length : fields * elements,
    );
    expect(seen).toBe(counts.reduce((sum, count) => sum + count));
  });

  it('reads the target, not the service TD, and of the EPTP no address', () => {
    const { rd, target } = bound();
    target.td.tdcs.setU64(TDCS.ATTRIBUTES, 0x1234n);
    expect(rd(idOf('ATTRIBUTES')).regs[R8]).toBe(0x1234n);
    expect(rd(idOf('EPTP')).regs[R8]).toBe(target.td.tdcs.u64(TDCS.EPTP) & 0xfff0_0000_0000_0fffn);
    const secret = rd(idOf('MRTD')).regs;
    expect([secret[RAX], secret[RDX], secret[R8]]).toEqual([
      STATUS.TDX_METADATA_FIELD_NOT_READABLE,
      NO_FIELD,
      0n,
    ]);
    expect(statusOf(rd(idOf('ATTRIBUTES') | (1n << 62n)))).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
  });

  it('draws a new export key whenever its first part is read', () => {
    const { rd, target } = bound();
    const { entropy } = target.machine;
    const key = (): bigint[] => [0, 1, 2, 3].map((i) => target.td.tdcs.u64(TDCS.MIG_ENC_KEY + 8 * i));
    const before = key();
    const drawn = entropy.drawn;
    const first = rd(idOf('MIG_ENC_KEY')).regs[R8]!;
    const after = key();
    expect(entropy.drawn - drawn).toBe(4);
    expect(after.every((qword, i) => qword !== before[i])).toBe(true);
    expect(first).toBe(after[0]);
    expect(rd(idOf('MIG_ENC_KEY') + 3n).regs[R8]).toBe(after[3]);
    expect(key()).toEqual(after);
    entropy.exhausted = true;
    expect(statusOf(rd(idOf('MIG_ENC_KEY')))).toBe(STATUS.TDX_RND_NO_ENTROPY);
    expect(key()).toEqual(after);
  });
});

describe('TDG.SERVTD.WR', () => {
  it('sets the import key and the protocol version, and answers the old value', () => {
    const { wr, target, service } = bound();
    const { tdcs } = target.td;
    expect(tdcs.flag(TDCS.MIG_DEC_KEY_SET)).toBe(false);
    expect(wr(idOf('MIG_DEC_KEY') + 1n, 0x55n).regs[R8]).toBe(0n);
    expect(tdcs.flag(TDCS.MIG_DEC_KEY_SET)).toBe(true);
    const again = wr(idOf('MIG_DEC_KEY') + 1n, 0x77n, 0x0fn).regs;
    expect([again[RAX], again[R8], again[RDX]]).toEqual([0n, 0x55n, idOf('MIG_DEC_KEY') + 1n]);
    expect(statusOf(wr(idOf('MIG_VERSION'), 0n, 0xffffn))).toBe(0n);
    expect(statusOf(wr(idOf('MIG_VERSION'), 1n, 0xffffn))).toBe(STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID);
    expect(statusOf(wr(idOf('MIG_ENC_KEY'), 1n))).toBe(STATUS.TDX_METADATA_FIELD_NOT_WRITABLE);
    expect(statusOf(wr(NO_FIELD, 1n))).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
    expect(service.td.tdcs.flag(TDCS.MIG_DEC_KEY_SET)).toBe(false);
  });
});

describe('a binding', () => {
  it('holds for the TD that is meant only', () => {
    const { rd, target, service, handle } = bound();
    const id = idOf('ATTRIBUTES');
    expect(statusOf(rd(id, { r11: 0n }))).toBe(STATUS.TDX_TARGET_UUID_MISMATCH);
    expect(statusOf(rd(id, { rcx: handle + 1n }))).toBe(withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX));
    [9n, 8n, 7n, 6n].forEach((qword, i) => {
      target.td.tdcs.setU64(TDCS.PRE_IMPORT_UUID + 8 * i, qword);
    });
    const updated = rd(id, { r10: 9n, r11: 8n, r12: 7n, r13: 6n }).regs;
    expect(updated[RAX]).toBe(STATUS.TDX_TARGET_UUID_UPDATED);
    expect([R10, R11, R12, R13].map((register) => updated[register])).toEqual(uuid(target));
    const elsewhere = rd(id, { rcx: handle - target.tdr + service.tdvpr });
    expect(trap(elsewhere)).toEqual([
      STATUS.TDX_CROSS_TD_TRAP,
      withOperand(STATUS.TDX_PAGE_METADATA_INCORRECT, OPERAND.TDR),
    ]);
  });

  it('ends for a service TD when its twin is bound', () => {
    const { rd, bind, service } = bound();
    const twin = anotherTd(service, { runnable: true, keyId: 44 });
    expect(bind({ rdx: twin.tdr }).rax).toBe(0n);
    expect(trap(rd(idOf('ATTRIBUTES')))).toEqual([STATUS.TDX_CROSS_TD_TRAP, STATUS.TDX_SERVTD_UUID_MISMATCH]);
    expect(bind().rax).toBe(0n);
    expect(statusOf(rd(idOf('ATTRIBUTES')))).toBe(0n);
  });

  it('ends when the service TD extends an RTMR, unless the binding ignores RTMRs', () => {
    const strict = bound();
    expect(statusOf(strict.rd(idOf('ATTRIBUTES')))).toBe(0n);
    extendRtmr(strict.service);
    expect(trap(strict.rd(idOf('ATTRIBUTES')))).toEqual([
      STATUS.TDX_CROSS_TD_TRAP,
      STATUS.TDX_SERVTD_INFO_HASH_MISMATCH,
    ]);
    expect(strict.bind().rax).toBe(STATUS.TDX_SERVTD_INFO_HASH_MISMATCH);
    const loose = bound(RTMRS);
    extendRtmr(loose.service);
    expect(statusOf(loose.rd(idOf('ATTRIBUTES')))).toBe(0n);
  });

  it('is busy for the service TD while somebody holds what it needs, and locks nothing afterwards', () => {
    const { rd, target, service } = bound();
    const locks = [
      [target, TDCS.OP_STATE_LOCK, OPERAND.OP_STATE],
      [target, TDCS.SERVTD_BINDINGS_LOCK, OPERAND.SERVTD_BINDINGS],
      [service, TDCS.RTMR_LOCK, OPERAND.RTMR],
    ] as const;
    for (const [t, lock, operand] of locks) {
      t.td.tdcs.setU16(lock, 1);
      expect(statusOf(rd(idOf('ATTRIBUTES')))).toBe(withOperand(STATUS.TDX_OPERAND_BUSY, operand));
      t.td.tdcs.setU16(lock, 0);
    }
    expect(statusOf(rd(idOf('ATTRIBUTES')))).toBe(0n);
    for (const [t, lock] of locks.slice(0, 2)) expect(t.td.tdcs.u16(lock)).toBe(0);
  });

  it('shows in the reports of the TD that is served', () => {
    const { target, finalise } = bound();
    const served = { ...target, tdvpr: finalise() };
    served.addTables(0, 0);
    const page = served.page();
    served.on(TDH.memPageAug, 0, 0, { r8: page });
    served.module.running[0] = undefined;
    const guest = guestExits(served);
    expect(statusOf(guest.tdcall(TDG.memPageAccept, {}))).toBe(0n);
    expect(statusOf(guest.tdcall(TDG.mrReport, { rcx: 0n, rdx: 0x800n }))).toBe(0n);
    const report = served.machine.memory.read(Number(page), 1024, served.td.keyId);
    expect([...report.subarray(0, 4)]).toEqual([0x81, 0, 1, 0]);
    expect(report.subarray(912, 960)).toEqual(served.td.tdcs.bytes(TDCS.SERVTD_HASH, 48));
  });
});
