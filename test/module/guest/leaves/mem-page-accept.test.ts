import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MIB, PAGE_4K } from '../../../../src/abi/address.ts';
import { TDG, TDH } from '../../../../src/abi/leaves.ts';
import { OPERAND } from '../../../../src/abi/operands.ts';
import { R8, RAX, RCX, RDX } from '../../../../src/abi/registers.ts';
import { withOperand } from '../../../../src/abi/status.ts';
import { STATUS } from '../../../../src/abi/status-codes.ts';
import { EXIT } from '../../../../src/abi/vm-exit.ts';
import { INTR_PENDING_MSR } from '../../../../src/module/pending-events.ts';
import { VMCS } from '../../../../src/module/td/vmcs.ts';
import { guestExits, statusOf } from '../../../support/guest-exits.ts';
import { FREE_GIB, type ReadyTd, readyTd } from '../../../support/ready-td.ts';
import '../../../support/seed.ts';

const GPA = 0x20_0000;
const LEVEL_2M = 1;
const MAPPED = 4n;
const PENDING = 2n;
/** Extended exit qualification: ACCEPT, level wanted, level found, state found, whether it is a leaf. */
function acceptDetails(wanted: number, found: number, state: bigint, leaf: bigint): bigint {
  return 1n | ((BigInt(wanted | (found << 3)) | (state << 6n) | (leaf << 14n)) << 32n);
}

function stateOf(t: ReadyTd, gpa: number, level = 0): bigint {
  return t.on(TDH.memSeptRd, gpa, level).rdx! >> 8n;
}

describe('TDG.MEM.PAGE.ACCEPT', () => {
  it('gives the TD a zeroed page, once', () => {
    const t = readyTd({ runnable: true });
    const { tdcall } = guestExits(t);
    t.addTables(GPA, 0);
    const page = t.page();
    expect(t.on(TDH.memPageAug, GPA, 0, { r8: page }).rax).toBe(0n);
    t.machine.memory.write(Number(page), Uint8Array.of(1, 2, 3), t.td.keyId);
    expect(stateOf(t, GPA)).toBe(PENDING);
    expect(statusOf(tdcall(TDG.memPageAccept, { rcx: BigInt(GPA) }))).toBe(0n);
    expect(stateOf(t, GPA)).toBe(MAPPED);
    expect(t.machine.memory.read(Number(page), PAGE_4K, t.td.keyId).every((byte) => byte === 0)).toBe(true);
    expect(statusOf(tdcall(TDG.memPageAccept, { rcx: BigInt(GPA) }))).toBe(STATUS.TDX_PAGE_ALREADY_ACCEPTED);
  });

  it('tells the host what it wants when there is no page', () => {
    const t = readyTd({ runnable: true });
    const { tdcall, vcpu } = guestExits(t);
    t.addTables(GPA, 1);
    const { outcome, regs } = tdcall(TDG.memPageAccept, { rcx: BigInt(GPA) });
    expect(outcome).toBe('exited');
    expect([regs[RAX], regs[RCX], regs[R8]]).toEqual([BigInt(EXIT.EPT_VIOLATION), 2n, BigInt(GPA)]);
    expect(regs[RDX]).toBe(acceptDetails(0, 1, 0n, 0n));
    expect(vcpu().regs.q[RCX]).toBe(BigInt(GPA)); // runs again
  });

  it('tells the TD of a page of another size', () => {
    const t = readyTd({ runnable: true, twoTdmrs: true });
    const { tdcall } = guestExits(t);
    t.addTables(GPA, 0);
    t.addTables(4 * MIB, 1);
    expect(t.on(TDH.memPageAug, 4 * MIB, LEVEL_2M, { r8: BigInt(FREE_GIB) }).rax).toBe(0n);
    const large = (gpa: number): bigint =>
      statusOf(tdcall(TDG.memPageAccept, { rcx: BigInt(gpa + LEVEL_2M) }));
    expect(large(GPA)).toBe(withOperand(STATUS.TDX_PAGE_SIZE_MISMATCH, LEVEL_2M));
    const small = tdcall(TDG.memPageAccept, { rcx: BigInt(4 * MIB) });
    expect(small.outcome).toBe('exited');
    expect(small.regs[RDX]).toBe(acceptDetails(0, 1, PENDING, 1n));
    expect(large(4 * MIB)).toBe(0n);
    expect(statusOf(tdcall(TDG.memPageAccept, { rcx: BigInt(4 * MIB) }))).toBe(
      withOperand(STATUS.TDX_PAGE_ALREADY_ACCEPTED, LEVEL_2M),
    );
  });

  it('goes on where an event of the host stopped it', () => {
    const t = readyTd({ runnable: true, twoTdmrs: true });
    const { tdcall, vcpu } = guestExits(t);
    t.addTables(4 * MIB, 1);
    expect(t.on(TDH.memPageAug, 4 * MIB, LEVEL_2M, { r8: BigInt(FREE_GIB) }).rax).toBe(0n);
    t.machine.lps[0]!.msrs.set(INTR_PENDING_MSR, 1n);
    const rip = vcpu().vmcs.read(VMCS.GUEST_RIP);
    for (let piece = 0; piece < 511; piece++) {
      const { outcome, regs } = tdcall(TDG.memPageAccept, { rcx: BigInt(4 * MIB + LEVEL_2M) });
      expect([outcome, regs[RAX]]).toEqual(['resumed', BigInt(TDG.memPageAccept)]);
    }
    expect(vcpu().vmcs.read(VMCS.GUEST_RIP)).toBe(rip);
    expect(statusOf(tdcall(TDG.memPageAccept, { rcx: BigInt(4 * MIB + LEVEL_2M) }))).toBe(0n);
    expect(vcpu().vmcs.read(VMCS.GUEST_RIP)).toBe(rip + 2n);
    expect(stateOf(t, 4 * MIB, LEVEL_2M)).toBe(MAPPED);
  });

  it('refuses every operand that names no private page of 4 KiB or 2 MiB', () => {
    const t = readyTd({ runnable: true });
    const { tdcall } = guestExits(t);
    const shared = 1n << 47n;
    const bad = fc.oneof(
      fc.bigInt({ min: 2n, max: 7n }).map((level) => BigInt(GPA) | level),
      fc.bigInt({ min: 1n, max: 0x1ffn }).map((low) => BigInt(GPA) | (low << 3n)),
      fc.bigInt({ min: 0n, max: 0xffffn }).map((pfn) => (pfn << 12n) | shared),
      fc.bigInt({ min: 48n, max: 63n }).map((bit) => BigInt(GPA) | (1n << bit)),
      fc.constant(BigInt(GPA + PAGE_4K + LEVEL_2M)),
    );
    fc.assert(
      fc.property(bad, (rcx) => {
        const invalid = withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
        expect(statusOf(tdcall(TDG.memPageAccept, { rcx }))).toBe(invalid);
      }),
      { numRuns: 100 },
    );
  });
});
