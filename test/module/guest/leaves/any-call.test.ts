import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TDG, TDH } from '../../../../src/abi/leaves.ts';
import { OPERAND } from '../../../../src/abi/operands.ts';
import { R8, R10, RAX, RCX, RDX, REGISTER_NAMES } from '../../../../src/abi/registers.ts';
import { decodeStatus, withOperand } from '../../../../src/abi/status.ts';
import { STATUS } from '../../../../src/abi/status-codes.ts';
import { TDCS, TDR, TDVPS } from '../../../../src/module/td/layout.ts';
import { VMCS } from '../../../../src/module/td/vmcs.ts';
import { type GuestExits, guestExits, statusOf } from '../../../support/guest-exits.ts';
import { type ReadyTd, readyTd } from '../../../support/ready-td.ts';
import '../../../support/seed.ts';

const INVALID_RAX = withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
const NO_LEAVES: readonly number[] = [13, 14, 15, 16, 17, 19, 21, 28, 63, 64, 72, 0xffff];

interface Td {
  readonly t: ReadyTd;
  readonly guest: GuestExits;
}

/** A TD with pages that are mapped, that wait, and that are not there. */
function td(l2Vms: number): Td {
  const t = readyTd({ runnable: true, l2Vms });
  const guest = guestExits(t);
  t.addTables(0, 0);
  for (const gpa of [0x1000, 0x2000, 0x3000]) t.on(TDH.memPageAug, gpa, 0, { r8: t.page() });
  guest.tdcall(TDG.memPageAccept, { rcx: 0x1000n });
  guest.tdcall(TDG.memPageAccept, { rcx: 0x2000n });
  return { t, guest };
}

describe('a TDCALL', () => {
  it('of a leaf or version that is not there is refused', () => {
    const { guest } = td(0);
    for (const leaf of NO_LEAVES) expect(statusOf(guest.tdcall(leaf))).toBe(INVALID_RAX);
    expect(statusOf(guest.tdcall(TDG.vpInfo | (1 << 16)))).toBe(INVALID_RAX);
    expect(statusOf(guest.tdcall(TDG.vpVeinfoGet | (3 << 16)))).toBe(INVALID_RAX);
    expect(statusOf(guest.tdcall(2 ** 24))).toBe(INVALID_RAX);
    expect(statusOf(guest.tdcall(2 ** 32))).toBe(INVALID_RAX);
  });

  it.each([
    ['1.5.05', [INVALID_RAX, INVALID_RAX]],
    ['1.5.09', [STATUS.TDX_NO_VALID_VE_INFO, INVALID_RAX]],
    ['1.5.24', [STATUS.TDX_NO_VALID_VE_INFO, STATUS.TDX_NO_VALID_VE_INFO]],
  ])('of a version that came later is refused by release %s', (release, expected) => {
    const guest = guestExits(readyTd({ runnable: true, release }));
    const versions = [1, 2].map((version) => statusOf(guest.tdcall(TDG.vpVeinfoGet | (version << 16))));
    expect(versions).toEqual(expected);
  });

  it('with any registers at all ends in a status, an event or an exit, and keeps the locks balanced', () => {
    const tds = [td(0), td(2)];
    const value = fc.oneof(
      fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
      fc.constantFrom(0n, 1n, 2n, 0x1000n, 0x1001n, 0x2000n, 0x3000n, 0x4000n, 1n << 47n, 1n << 52n),
      fc.bigInt({ min: 0n, max: 0xffn }),
    );
    const leaf = fc.oneof(fc.integer({ min: 0, max: 28 }), fc.integer({ min: 0, max: 0x3_001f }));
    const registers = fc.array(value, { minLength: REGISTER_NAMES.length, maxLength: REGISTER_NAMES.length });
    fc.assert(
      fc.property(fc.constantFrom(...tds), leaf, registers, ({ t, guest }, number, values) => {
        const operands = Object.fromEntries(REGISTER_NAMES.map((name, i) => [name, values[i]!]));
        const { outcome, regs, vector } = guest.tdcall(number, operands);
        const { tdcs, tdr } = t.td;
        expect(tdr.u8(TDR.FATAL)).toBe(0);
        for (const lock of [
          TDCS.OP_STATE_LOCK,
          TDCS.RTMR_LOCK,
          TDCS.SEPT_TREE_LOCK,
          TDCS.SERVTD_BINDINGS_LOCK,
        ]) {
          expect(tdcs.u16(lock)).toBe(0);
        }
        if (outcome === 'injected') expect([8, 13, 20]).toContain(vector);
        if (outcome === 'resumed') expect(decodeStatus(regs[RAX]!).name).toBeDefined();
        const { tdvps, vmcs } = guest.vcpu();
        tdvps.setU32(TDVPS.VE_VALID, 0);
        vmcs.writeNumber(VMCS.ENTRY_INTERRUPTION_INFO, 0);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('a leaf of a feature that is not in use', () => {
  it('for service TDs finds no TD, or the wrong one, or one that is not bound to it', () => {
    const { t, guest } = td(0);
    const uuid = Array.from({ length: 4 }, (_, i) => t.td.tdr.u64(TDR.TD_UUID + 8 * i));
    const [r10, r11, r12, r13] = uuid as [bigint, bigint, bigint, bigint];
    const handle = (address: bigint, slot = 0n): bigint => BigInt.asUintN(64, (address | slot) + r10);
    const own = { r10, r11, r12, r13, rdx: 5n };
    const badSlot = guest.tdcall(TDG.servtdRd, { ...own, rcx: handle(t.tdr, 1n) });
    expect([badSlot.regs[RAX], badSlot.regs[RDX]]).toEqual([
      withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX),
      0xffff_ffff_ffff_ffffn,
    ]);
    expect(statusOf(guest.tdcall(TDG.servtdWr, { ...own, rcx: handle(t.tdr), r13: r13 ^ 1n }))).toBe(
      STATUS.TDX_TARGET_UUID_MISMATCH,
    );
    const unbound = guest.tdcall(TDG.servtdRd, { ...own, rcx: handle(t.tdr) });
    expect(unbound.outcome).toBe('exited');
    expect([unbound.regs[RAX], unbound.regs[RDX], unbound.regs[R8]]).toEqual([
      STATUS.TDX_CROSS_TD_TRAP,
      STATUS.TDX_SERVTD_NOT_BOUND,
      t.tdr,
    ]);
    const { regs } = guest.vcpu();
    expect([regs.q[RAX], regs.q[R10]]).toEqual([STATUS.TDX_SERVTD_NOT_BOUND, r10]);
    const nowhere = guest.tdcall(TDG.servtdRd, { ...own, rcx: handle(t.tdvpr) });
    expect([nowhere.regs[RAX], nowhere.regs[RDX]]).toEqual([
      STATUS.TDX_CROSS_TD_TRAP,
      withOperand(STATUS.TDX_PAGE_METADATA_INCORRECT, OPERAND.TDR),
    ]);
  });

  it('for L2 VMs refuses VMs that the TD does not have', () => {
    const without = td(0).guest;
    const invalid = (operand: number): bigint => withOperand(STATUS.TDX_OPERAND_INVALID, operand);
    expect(statusOf(without.tdcall(TDG.vpInvept, { rcx: 2n }))).toBe(invalid(OPERAND.RCX));
    expect(statusOf(without.tdcall(TDG.vpInvvpid, { rcx: 1n << 52n }))).toBe(invalid(OPERAND.RCX));
    expect(statusOf(without.tdcall(TDG.vpEnter, { rcx: 1n << 52n, rdx: 0x1080n }))).toBe(
      invalid(OPERAND.RDX),
    );
    expect(statusOf(without.tdcall(TDG.vpEnter, { rcx: 1n << 52n, rdx: 0x1000n }))).toBe(
      invalid(OPERAND.RCX),
    );
    const { guest } = td(2);
    expect(statusOf(guest.tdcall(TDG.vpInvept, { rcx: 6n }))).toBe(0n);
    expect(statusOf(guest.tdcall(TDG.vpInvept, { rcx: 8n }))).toBe(invalid(OPERAND.RCX));
    expect(statusOf(guest.tdcall(TDG.vpEnter, { rcx: 1n << 52n, rdx: 0x1000n }))).toBe(
      invalid(OPERAND.L2_VAPIC_GPA),
    );
  });

  it('invalidates a list of linear addresses of an L2 VM up to one that cannot be', () => {
    const { guest } = td(1);
    const list = (first: bigint, count: bigint): bigint => first | 0x1000n | (count << 52n);
    const whole = guest.tdcall(TDG.vpInvvpid, { rcx: (1n << 52n) | 1n, rdx: list(3n, 4n) });
    expect([whole.regs[RAX], whole.regs[RCX], whole.regs[RDX]]).toEqual([0n, (1n << 52n) | 1n, list(7n, 0n)]);
    expect(statusOf(guest.tdcall(TDG.vpInvvpid, { rcx: 1n << 52n, rdx: 1n << 60n }))).toBe(
      STATUS.TDX_GLA_NOT_CANONICAL,
    );
    expect(statusOf(guest.tdcall(TDG.vpInvvpid, { rcx: (1n << 52n) | 1n, rdx: list(500n, 13n) }))).toBe(
      withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX),
    );
  });
});
