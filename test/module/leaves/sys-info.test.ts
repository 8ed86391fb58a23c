import { describe, expect, it } from 'vitest';
import { GIB } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { findRelease } from '../../../src/module/releases.ts';
import { moduleMachine } from '../../support/module-machine.ts';
import { initialise } from '../../support/ready-module.ts';

const INFO = 0x40_0000;
const CMRS = 0x40_1000;
const GOOD = { rcx: BigInt(INFO), rdx: 1024n, r8: BigInt(CMRS), r9: 32n };

function initialised(version = '1.5.25') {
  return initialise(moduleMachine({}, findRelease(version)!));
}

describe('TDH.SYS.INFO', () => {
  it('writes TDSYSINFO and the CMRs', () => {
    const host = initialised();
    expect(host.call(TDH.sysInfo, GOOD)).toEqual({ rax: 0n, ...GOOD });
    const info = new DataView(host.machine.memory.read(INFO, 1024, 0).buffer);
    expect(info.getUint32(4, true)).toBe(0x8086);
    expect([info.getUint16(16, true), info.getUint16(14, true), info.getUint8(18)]).toEqual([1, 5, 1]);
    expect([info.getUint16(32, true), info.getUint16(34, true), info.getUint16(36, true)]).toEqual([
      64, 16, 16,
    ]);
    expect(info.getUint32(128, true)).toBe(28);
    const cmrs = new DataView(host.machine.memory.read(CMRS, 512, 0).buffer);
    expect([0, 8, 16, 24, 32].map((at) => Number(cmrs.getBigUint64(at, true)))).toEqual([
      0,
      3 * GIB,
      4 * GIB,
      9 * GIB,
      0,
    ]);
  });

  it('is all that release 1.0 has, with fewer leaves and pages', () => {
    const host = initialised('1.0');
    expect(host.status(TDH.sysInfo, GOOD)).toBe(0n);
    const info = new DataView(host.machine.memory.read(INFO, 1024, 0).buffer);
    expect([
      info.getUint16(14, true),
      info.getUint8(18),
      info.getUint16(48, true),
      info.getUint32(128, true),
    ]).toEqual([0, 0, 4 * 4096, 6]);
  });

  it('refuses operands in the order of the ABI, clearing the first buffer before it looks at the second', () => {
    const host = initialised();
    const invalid = (operand: bigint) => STATUS.TDX_OPERAND_INVALID | operand;
    expect(moduleMachine().status(TDH.sysInfo, GOOD)).toBe(STATUS.TDX_SYS_LP_INIT_NOT_DONE);
    expect(host.call(TDH.sysInfo, { ...GOOD, rcx: 0x40_0200n, rdx: 0n })).toEqual({
      rax: invalid(1n),
      rcx: 0x40_0200n,
      r8: GOOD.r8,
    });
    host.machine.memory.write(INFO, new Uint8Array(1024).fill(5), 0);
    expect(host.status(TDH.sysInfo, { ...GOOD, rdx: 1023n })).toBe(invalid(2n));
    expect(host.machine.memory.read(INFO, 1, 0)[0]).toBe(5);
    expect(host.status(TDH.sysInfo, { ...GOOD, r8: 0x40_1100n })).toBe(invalid(8n));
    expect(host.machine.memory.read(INFO, 1, 0)[0]).toBe(0);
    expect(host.status(TDH.sysInfo, { ...GOOD, r9: 31n })).toBe(invalid(9n));
  });
});
