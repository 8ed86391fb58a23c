import { describe, expect, it } from 'vitest';
import { TDG, TDH } from '../../../../src/abi/leaves.ts';
import { OPERAND } from '../../../../src/abi/operands.ts';
import { R8, RAX, RCX, RDX } from '../../../../src/abi/registers.ts';
import { withInfo, withOperand } from '../../../../src/abi/status.ts';
import { STATUS } from '../../../../src/abi/status-codes.ts';
import { EXIT } from '../../../../src/abi/vm-exit.ts';
import { type ExitEffect, type GuestExits, guestExits, statusOf } from '../../../support/guest-exits.ts';
import { type ReadyTd, readyTd } from '../../../support/ready-td.ts';

const GPA = 0x20_0000;
const PENDING = 1n << 62n;
const VERSION_1 = 1 << 16;
const NO_PAGE = 0xffff_ffff_ffff_ffffn;
const R = 1n;
const W = 2n;
const PWA = 32n;
const VALID = 1n << 15n;

interface Attributes {
  readonly t: ReadyTd;
  readonly guest: GuestExits;
  readonly read: (gpa?: number) => ExitEffect;
  /** Writes the attributes of VM 1; `mask` are the bits to change. */
  readonly write: (attributes: bigint, mask?: bigint) => ExitEffect;
}

/** A TD with one L2 VM and a page that waits at `GPA`. */
function attributes(l2Tables = true): Attributes {
  const t = readyTd({ runnable: true, l2Vms: 1 });
  const guest = guestExits(t);
  for (let level = 3; level > 0; level--) {
    const operands = { r8: t.page(), r9: l2Tables ? t.page() : NO_PAGE, r10: NO_PAGE, r11: NO_PAGE };
    const span = 4096 * 512 ** level;
    const out = t.on(TDH.memSeptAdd | VERSION_1, GPA - (GPA % span), level, operands);
    expect(out.rax).toBe(0n);
  }
  expect(t.on(TDH.memPageAug, GPA, 0, { r8: t.page() }).rax).toBe(0n);
  return {
    t,
    guest,
    read: (gpa = GPA) => guest.tdcall(TDG.memPageAttrRd, { rcx: BigInt(gpa) }),
    write: (value, mask = 0x7fn) =>
      guest.tdcall(TDG.memPageAttrWr, { rcx: BigInt(GPA), rdx: value << 16n, r8: mask << 16n }),
  };
}

describe('page attributes of an L2 VM', () => {
  it('are none before the TD gives any, and what it gave then', () => {
    const { read, write, guest } = attributes();
    expect(read().regs.slice(RAX, RDX + 1)).toEqual(BigUint64Array.of(0n, BigInt(GPA) | PENDING, 0n));
    const given = (VALID | R | W) << 16n;
    expect(write(VALID | R | W).regs.slice(RAX, RDX + 1)).toEqual(
      BigUint64Array.of(0n, BigInt(GPA) | PENDING, given),
    );
    expect(read().regs[RDX]).toBe(given);
    expect(statusOf(guest.tdcall(TDG.memPageAccept, { rcx: BigInt(GPA) }))).toBe(0n);
    expect(read().regs.slice(RCX, RDX + 1)).toEqual(BigUint64Array.of(BigInt(GPA), given));
  });

  it('change in the bits of the mask only, and go when no access is left', () => {
    const { read, write } = attributes();
    write(VALID | R | W);
    expect(write(VALID, W).regs[RDX]).toBe((VALID | R) << 16n);
    expect(read().regs[RDX]).toBe((VALID | R) << 16n);
    expect(write(VALID).regs[RDX]).toBe(VALID << 16n);
    expect(read().regs[RDX]).toBe(0n);
  });

  it('are refused in combinations that no entry can hold, with what is there', () => {
    const { write } = attributes();
    const refused = write(VALID | W);
    expect([refused.regs[RAX], refused.regs[RCX], refused.regs[RDX]]).toEqual([
      STATUS.TDX_PAGE_ATTR_INVALID,
      0n,
      0n,
    ]);
    write(VALID | R);
    expect(write(VALID | W | PWA, R | W | PWA).regs[RDX]).toBe((VALID | R) << 16n);
  });

  it('are for VMs that exist', () => {
    const { guest, write } = attributes();
    const status = (rdx: bigint, r8: bigint): bigint =>
      statusOf(guest.tdcall(TDG.memPageAttrWr, { rcx: BigInt(GPA), rdx, r8 }));
    expect(status(VALID, 0n)).toBe(withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX));
    expect(status(0n, 1n << 32n)).toBe(withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R8));
    expect(statusOf(write(R))).toBe(withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX));
  });

  it('need the tables of the VM, and a page', () => {
    const { write, read } = attributes(false);
    expect(statusOf(write(VALID | R))).toBe(withInfo(STATUS.TDX_L2_SEPT_WALK_FAILED, 3, 0, 1));
    const { outcome, regs } = read(GPA + 0x5000);
    expect(outcome).toBe('exited');
    expect([regs[RAX], regs[RCX], regs[RDX], regs[R8]]).toEqual([
      BigInt(EXIT.EPT_VIOLATION),
      0n,
      0n,
      BigInt(GPA + 0x5000),
    ]);
  });
});
