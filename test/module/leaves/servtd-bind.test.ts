import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TDH } from '../../../src/abi/leaves.ts';
import { OPERAND } from '../../../src/abi/operands.ts';
import { withOperand } from '../../../src/abi/status.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { SERVTD_BINDING, TDCS } from '../../../src/module/td/layout.ts';
import { anotherTd, type ReadyTd, readyTd } from '../../support/ready-td.ts';
import { ignoring, servedTd, uuid } from '../../support/service-tds.ts';

const TABLE = TDCS.SERVTD_BINDINGS_TABLE;
const HASH = 0x40_0000;
const WHOLE_INFO = 0n;
const ALL = 0xffff_ffff_ffff_ffffn;
const RUNNABLE = 2;

const invalid = (operand: number): bigint => withOperand(STATUS.TDX_OPERAND_INVALID, operand);

/** TDINFO of a TD as the ABI lays it out, without the parts whose bit is set in `ignored`; and its hash. */
function infoHash({ td: { tdcs } }: ReadyTd, ignored: bigint): Buffer {
  const places = [
    [TDCS.ATTRIBUTES, 8, 0],
    [TDCS.XFAM, 8, 8],
    [TDCS.MRTD, 48, 16],
    [TDCS.MRCONFIGID, 48, 64],
    [TDCS.MROWNER, 48, 112],
    [TDCS.MROWNERCONFIG, 48, 160],
    [TDCS.RTMR, 48, 208],
    [TDCS.RTMR + 48, 48, 256],
    [TDCS.RTMR + 96, 48, 304],
    [TDCS.RTMR + 144, 48, 352],
    [TDCS.SERVTD_HASH, 48, 400],
  ] as const;
  const info = new Uint8Array(512);
  places.forEach(([from, length, to], part) => {
    if ((ignored & ignoring(part)) === 0n) info.set(tdcs.bytes(from, length), to);
  });
  return createHash('sha384').update(info).digest();
}

const prebind = (t: ReadyTd, operands: Record<string, bigint> = {}): bigint =>
  t.status(TDH.servtdPrebind, { rcx: t.tdr, rdx: BigInt(HASH), ...operands });

describe('TDH.SERVTD.BIND', () => {
  it('answers with the handle that the service TD needs and the UUID of the target', () => {
    const { target, service, bind } = servedTd();
    const [r10, r11, r12, r13] = uuid(target);
    const handle = BigInt.asUintN(64, target.tdr + uuid(service)[0]);
    expect(bind()).toEqual({ rax: 0n, rcx: handle, rdx: service.tdr, r10, r11, r12, r13 });
  });

  it.each([
    WHOLE_INFO,
    ignoring(0),
    ignoring(1, 2, 3),
    ignoring(4, 5),
    ignoring(6, 8),
    ignoring(7, 9),
    ignoring(...Array.from({ length: 11 }, (_, i) => i)),
  ])('keeps which service TD is meant, by TDINFO without the parts in %x', (attributes) => {
    const { target, service, bind } = servedTd({ attributes: 1n << 28n });
    for (let i = 0; i < 384; i++) service.td.tdcs.setU8(TDCS.MRTD + i, i % 251);
    expect(bind({ r10: attributes }).rax).toBe(0n);
    const { tdcs } = target.td;
    expect(tdcs.u16(TDCS.SERVTD_NUM)).toBe(1);
    expect(tdcs.u8(TABLE + SERVTD_BINDING.STATE)).toBe(2);
    expect(tdcs.u64(TABLE + SERVTD_BINDING.ATTRIBUTES)).toBe(attributes);
    expect(uuid(service).every((q, i) => tdcs.u64(TABLE + SERVTD_BINDING.UUID + 8 * i) === q)).toBe(true);
    const kept = Buffer.from(tdcs.bytes(TABLE + SERVTD_BINDING.INFO_HASH, 48));
    expect(kept.toString('hex')).toBe(infoHash(service, attributes).toString('hex'));
  });

  it('binds before MNG.INIT too, and MR.FINALIZE makes the hash of what is bound', () => {
    const { target, service, bind, finalise } = servedTd();
    const attributes = ignoring(6, 7, 8, 9);
    expect(bind({ r10: attributes }).rax).toBe(0n);
    expect(target.td.tdcs.bytes(TDCS.SERVTD_HASH, 48).every((byte) => byte === 0)).toBe(true);
    finalise();
    const entry = Buffer.alloc(58);
    infoHash(service, attributes).copy(entry);
    entry.writeBigUInt64LE(attributes, 50);
    const hash = Buffer.from(target.td.tdcs.bytes(TDCS.SERVTD_HASH, 48));
    expect(hash.toString('hex')).toBe(createHash('sha384').update(entry).digest('hex'));

    const tdr = target.page();
    target.status(TDH.mngCreate, { rcx: tdr, rdx: 43n });
    const bindNew = (): bigint => bind({ rcx: tdr }).rax!;
    expect(bindNew()).toBe(STATUS.TDX_TD_KEYS_NOT_CONFIGURED);
    for (const lp of [0, 2]) target.status(TDH.mngKeyConfig, { rcx: tdr }, lp);
    expect(bindNew()).toBe(STATUS.TDX_TDCS_NOT_ALLOCATED);
    for (let i = 0; i < 6; i++) target.status(TDH.mngAddcx, { rcx: target.page(), rdx: tdr });
    expect(bindNew()).toBe(0n);
  });

  it('binds the same kind of service TD again at any time, but none for the first time to a final TD', () => {
    const { target, service, bind, finalise } = servedTd();
    bind();
    finalise();
    const twin = anotherTd(service, { runnable: true, keyId: 44 });
    expect(bind({ rdx: twin.tdr }).rcx).toBe(BigInt.asUintN(64, target.tdr + uuid(twin)[0]));
    expect(target.td.tdcs.u16(TDCS.SERVTD_NUM)).toBe(1);
    const late = servedTd();
    late.finalise();
    expect(late.bind().rax).toBe(withOperand(STATUS.TDX_OP_STATE_INCORRECT, RUNNABLE));
  });

  it('refuses a binding that differs from the one there is, bound or announced', () => {
    for (const announced of [false, true]) {
      const { target, service, bind } = servedTd();
      if (announced) {
        target.machine.memory.write(HASH, infoHash(service, WHOLE_INFO), 0);
        expect(prebind(target)).toBe(0n);
      } else bind();
      expect(bind({ r10: ignoring(6) }).rax).toBe(STATUS.TDX_SERVTD_ATTR_MISMATCH);
      const other = anotherTd(service, { runnable: true, keyId: 44, attributes: 1n << 28n });
      expect(bind({ rdx: other.tdr }).rax).toBe(STATUS.TDX_SERVTD_INFO_HASH_MISMATCH);
      expect(bind().rax).toBe(0n);
      target.td.tdcs.setU16(TABLE + SERVTD_BINDING.TYPE, 1);
      expect(bind({ r10: ignoring(6) }).rax).toBe(STATUS.TDX_SERVTD_TYPE_MISMATCH);
    }
  });

  it('checks its operands and what they name in the order of the ABI, and then answers zeroes', () => {
    const { target, service, bind } = servedTd();
    const free = target.page();
    const young = anotherTd(target, { keyId: 44 });
    const bad = { rdx: free, r8: 1n, r9: 1n, r10: 2n } as const;
    const zeroes = { rdx: free, r8: 1n, r9: 1n };
    const wrong = (operand: number): bigint => withOperand(STATUS.TDX_PAGE_METADATA_INCORRECT, operand);
    expect(bind({ ...bad, rcx: free })).toEqual({ ...zeroes, rax: invalid(OPERAND.RDX) });
    expect(bind({ ...bad, rcx: free + 1n })).toEqual({ ...zeroes, rax: invalid(OPERAND.RCX) });
    expect(bind({ ...bad, rcx: free, rdx: target.tdr }).rax).toBe(wrong(OPERAND.RCX));
    expect(bind(bad)).toEqual({ ...zeroes, rax: wrong(OPERAND.RDX) });
    expect(bind({ ...bad, rdx: young.tdr }).rax).toBe(withOperand(STATUS.TDX_OP_STATE_INCORRECT, 1));
    expect(bind({ ...bad, rdx: service.tdr }).rax).toBe(invalid(OPERAND.R8));
    expect(bind({ ...bad, rdx: service.tdr, r8: 0n }).rax).toBe(invalid(OPERAND.R9));
    expect(bind({ r9: 0x1_0000n }).rax).toBe(invalid(OPERAND.R9));
    expect(bind({ r10: 2n }).rax).toBe(invalid(OPERAND.R10));
    expect(bind({ r10: ignoring(11) }).rax).toBe(invalid(OPERAND.R10));
    expect(target.td.tdcs.u16(TDCS.SERVTD_NUM)).toBe(0);
    expect(bind({ r10: ignoring(10) | 1n }).rax).toBe(0n);
  });

  it.each([
    ['target', TDCS.OP_STATE_LOCK, OPERAND.OP_STATE],
    ['service', TDCS.OP_STATE_LOCK, OPERAND.OP_STATE],
    ['target', TDCS.SERVTD_BINDINGS_LOCK, OPERAND.SERVTD_BINDINGS],
    ['service', TDCS.RTMR_LOCK, OPERAND.RTMR],
  ] as const)(
    'is busy while the lock of the %s TD at %d is held, and leaves no lock behind',
    (who, lock, operand) => {
      const tds = servedTd();
      const { tdcs } = tds[who].td;
      tdcs.setU16(lock, 1);
      expect(tds.bind().rax).toBe(withOperand(STATUS.TDX_OPERAND_BUSY, operand));
      tdcs.setU16(lock, 0);
      expect(tds.bind().rax).toBe(0n);
      expect(tdcs.u16(lock)).toBe(0);
      expect(tds.finalise()).not.toBe(0n);
    },
  );

  it('takes any operands without harm: a status, and outputs only with success', () => {
    const { target, service, bind } = servedTd();
    const operand = fc.oneof(
      fc.constantFrom(0n, 1n, ALL, target.tdr, service.tdr, service.tdvpr, target.tdr | 1n, ignoring(6)),
      fc.bigInt({ min: 0n, max: ALL }),
    );
    fc.assert(
      fc.property(fc.tuple(operand, operand, operand, operand, operand), ([rcx, rdx, r8, r9, r10]) => {
        const out = bind({ rcx, rdx, r8, r9, r10, r13: 7n, r15: 5n });
        if (out.rax !== 0n) expect([out.rcx, out.r10, out.r13]).toEqual([undefined, undefined, undefined]);
        expect([out.rdx ?? 0n, out.r15]).toEqual([rdx, 5n]);
        prebind(target, { rcx, rdx, r8, r9, r10 });
        expect(target.td.tdcs.u16(TDCS.SERVTD_NUM)).toBeLessThanOrEqual(1);
        expect(target.td.tdcs.u16(TDCS.SERVTD_BINDINGS_LOCK)).toBe(0);
      }),
      { numRuns: 500 },
    );
  });
});

describe('TDH.SERVTD.PREBIND', () => {
  it('announces a service TD, which can bind after the TD is final, and only that one', () => {
    const { target, service, bind, finalise } = servedTd();
    const attributes = ignoring(6);
    target.machine.memory.write(HASH, infoHash(service, attributes), 0);
    expect(prebind(target, { r10: attributes, r11: 9n })).toBe(0n);
    expect(prebind(target, { r10: attributes })).toBe(0n);
    const { tdcs } = target.td;
    expect([tdcs.u16(TDCS.SERVTD_NUM), tdcs.u8(TABLE + SERVTD_BINDING.STATE)]).toEqual([1, 1]);
    finalise();
    const other = anotherTd(service, { runnable: true, keyId: 44, attributes: 1n << 28n });
    expect(bind({ rdx: other.tdr, r10: attributes }).rax).toBe(STATUS.TDX_SERVTD_INFO_HASH_MISMATCH);
    expect(bind({ r10: attributes }).rax).toBe(0n);
    expect([tdcs.u16(TDCS.SERVTD_NUM), tdcs.u8(TABLE + SERVTD_BINDING.STATE)]).toEqual([1, 2]);
  });

  it('checks in the order of the ABI and changes no register but RAX', () => {
    const t = readyTd();
    const free = t.page();
    const bad = { rcx: free, rdx: BigInt(HASH) + 32n, r8: 1n, r9: 2n, r10: 2n, r13: 3n };
    expect(t.call(TDH.servtdPrebind, bad)).toEqual({
      ...bad,
      rax: withOperand(STATUS.TDX_PAGE_METADATA_INCORRECT, OPERAND.RCX),
    });
    expect(prebind(t, { ...bad, rcx: t.tdr })).toBe(invalid(OPERAND.RDX));
    expect(prebind(t, { ...bad, rcx: t.tdr, rdx: BigInt(HASH) | (40n << 46n) })).toBe(invalid(OPERAND.RDX));
    expect(prebind(t, { ...bad, rcx: t.tdr, rdx: BigInt(HASH) })).toBe(invalid(OPERAND.R8));
    expect(prebind(t, { r9: 2n, r10: 2n })).toBe(invalid(OPERAND.R9));
    expect(prebind(t, { r10: 2n })).toBe(invalid(OPERAND.R10));
    t.td.tdcs.setU16(TDCS.SERVTD_BINDINGS_LOCK, 1);
    expect(prebind(t)).toBe(withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.SERVTD_BINDINGS));
  });

  it('does not replace a service TD that is bound, nor announce one to a final TD', () => {
    const { target, bind, finalise } = servedTd();
    bind();
    expect(prebind(target)).toBe(STATUS.TDX_SERVTD_BOUND);
    finalise();
    expect(prebind(target)).toBe(withOperand(STATUS.TDX_OP_STATE_INCORRECT, RUNNABLE));
  });
});
