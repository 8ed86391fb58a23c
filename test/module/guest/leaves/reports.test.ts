import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../../src/abi/address.ts';
import { TDG, TDH } from '../../../../src/abi/leaves.ts';
import { OPERAND } from '../../../../src/abi/operands.ts';
import { RAX } from '../../../../src/abi/registers.ts';
import { withOperand } from '../../../../src/abi/status.ts';
import { STATUS } from '../../../../src/abi/status-codes.ts';
import { INTR_PENDING_MSR } from '../../../../src/module/pending-events.ts';
import { TDCS } from '../../../../src/module/td/layout.ts';
import { type GuestExits, guestExits, statusOf } from '../../../support/guest-exits.ts';
import { type ReadyTd, readyTd } from '../../../support/ready-td.ts';

const REPORT = 0x1000;
const DATA = 0x2000;

interface Reporter {
  readonly t: ReadyTd;
  readonly guest: GuestExits;
  readonly report: () => bigint;
  readonly verify: () => bigint;
  readonly read: (gpa: number, length: number) => Uint8Array;
  readonly write: (gpa: number, bytes: Uint8Array) => void;
}

function reporter(): Reporter {
  const t = readyTd({ runnable: true });
  const guest = guestExits(t);
  t.addTables(0, 0);
  const pages = new Map<number, number>();
  for (const gpa of [REPORT, DATA]) {
    const page = t.page();
    t.on(TDH.memPageAug, gpa, 0, { r8: page });
    expect(statusOf(guest.tdcall(TDG.memPageAccept, { rcx: BigInt(gpa) }))).toBe(0n);
    pages.set(gpa, Number(page));
  }
  const hpa = (gpa: number): number => pages.get(gpa - (gpa % PAGE_4K))! + (gpa % PAGE_4K);
  const { memory } = t.machine;
  return {
    t,
    guest,
    report: () => statusOf(guest.tdcall(TDG.mrReport, { rcx: BigInt(REPORT), rdx: BigInt(DATA) })),
    verify: () => statusOf(guest.tdcall(TDG.mrVerifyreport, { rcx: BigInt(REPORT) })),
    read: (gpa, length) => memory.read(hpa(gpa), length, t.td.keyId),
    write: (gpa, bytes) => memory.write(hpa(gpa), bytes, t.td.keyId),
  };
}

function sha384(...parts: readonly Uint8Array[]): string {
  const hash = createHash('sha384');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('TDG.MR.REPORT', () => {
  it('states the TD, its data and what runs under it, each with its hash', () => {
    const { report, read, write, t } = reporter();
    const data = Uint8Array.from({ length: 64 }, (_, i) => 3 * i);
    write(DATA, data);
    expect(report()).toBe(0n);
    const bytes = read(REPORT, 1024);
    expect([...bytes.subarray(0, 4)]).toEqual([0x81, 0, 0, 0]);
    expect(bytes.subarray(128, 192)).toEqual(data);
    expect(hex(bytes.subarray(80, 128))).toBe(sha384(bytes.subarray(512)));
    expect(hex(bytes.subarray(32, 80))).toBe(sha384(bytes.subarray(256, 256 + 239)));
    const mrtd = bytes.subarray(512 + 16, 512 + 64);
    expect(mrtd).toEqual(t.td.tdcs.bytes(TDCS.MRTD, 48));
    expect(mrtd.some((byte) => byte !== 0)).toBe(true);
  });

  it('shows what the TD measured since', () => {
    const { guest, report, read, write } = reporter();
    const extension = Uint8Array.from({ length: 48 }, (_, i) => i + 1);
    write(DATA, extension);
    expect(report()).toBe(0n);
    expect(statusOf(guest.tdcall(TDG.mrRtmrExtend, { rcx: BigInt(DATA), rdx: 2n }))).toBe(0n);
    expect(report()).toBe(0n);
    const rtmr2 = read(REPORT + 512 + 208 + 2 * 48, 48);
    expect(hex(rtmr2)).toBe(sha384(new Uint8Array(48), extension));
  });

  it('lets an event of the host in before it has the hash, and not afterwards', () => {
    const { t, guest, report } = reporter();
    t.machine.lps[0]!.msrs.set(INTR_PENDING_MSR, 2n);
    const first = guest.tdcall(TDG.mrReport, { rcx: BigInt(REPORT), rdx: BigInt(DATA) });
    expect(first.regs[RAX]).toBe(BigInt(TDG.mrReport));
    expect(report()).toBe(0n);
  });

  it('checks its operands in the order report, data, data mapping, subtype', () => {
    const { guest } = reporter();
    const status = (rcx: number, rdx: number, r8 = 0n): bigint =>
      statusOf(guest.tdcall(TDG.mrReport, { rcx: BigInt(rcx), rdx: BigInt(rdx), r8 }));
    const invalid = (operand: number): bigint => withOperand(STATUS.TDX_OPERAND_INVALID, operand);
    expect(status(REPORT + 512, DATA + 8, 1n)).toBe(invalid(OPERAND.RCX));
    expect(status(REPORT, DATA + 8, 1n)).toBe(invalid(OPERAND.RDX));
    expect(status(REPORT, 2 ** 48, 1n)).toBe(invalid(OPERAND.RDX));
    expect(status(REPORT, DATA, 1n)).toBe(invalid(OPERAND.R8));
    expect(status(2 ** 48, DATA)).toBe(invalid(OPERAND.RCX));
  });
});

describe('TDG.MR.VERIFYREPORT', () => {
  it('accepts what MR.REPORT made on this machine, and nothing else', () => {
    const { report, verify, read, write } = reporter();
    expect(report()).toBe(0n);
    expect(verify()).toBe(0n);
    const mac = read(REPORT, 256);
    for (const at of [0, 40, 90, 130, 223, 224, 255]) {
      const forged = mac.slice();
      forged[at]! ^= 1;
      write(REPORT, forged);
      expect(verify()).toBe(STATUS.TDX_INVALID_REPORTMACSTRUCT);
    }
    const otherCpu = mac.slice();
    otherCpu[16]! ^= 1;
    write(REPORT, otherCpu);
    expect(verify()).toBe(STATUS.TDX_INVALID_CPUSVN);
    write(REPORT, mac);
    expect(verify()).toBe(0n);
  });

  it('is not there on a processor that cannot verify', () => {
    const { guest, t } = reporter();
    const platform = t.module.platform!;
    t.module.platform = { ...platform, seamCapabilities: platform.seamCapabilities & ~(1 << 6) };
    expect(statusOf(guest.tdcall(TDG.mrVerifyreport, { rcx: 1n }))).toBe(STATUS.TDX_OPERAND_INVALID);
  });
});
