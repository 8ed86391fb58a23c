import { describe, expect, it } from 'vitest';
import { KernelError } from '../../src/abi/errno.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { R8, R11, RAX, RCX, RDX } from '../../src/abi/registers.ts';
import { SW_STATUS } from '../../src/abi/status.ts';
import { STATUS } from '../../src/abi/status-codes.ts';
import { Cpu } from '../../src/kernel/cpu.ts';
import { LogRing } from '../../src/kernel/log.ts';
import {
  seamcall,
  seamcallPrerr,
  seamcallPrerrRet,
  seamldrCall,
  setOperands,
} from '../../src/kernel/seamcall.ts';
import { MachineCheck } from '../../src/machine/exceptions.ts';
import type { LogicalProcessor } from '../../src/machine/lp.ts';
import { Machine } from '../../src/machine/machine.ts';
import { TINY } from './tiny-machine.ts';

function cpuWith(run: ((lp: LogicalProcessor) => void) | null): { cpu: Cpu; log: LogRing; machine: Machine } {
  const machine = new Machine(TINY);
  if (run !== null) machine.seam.module = { version: 'stub', seamcall: run };
  const cpu = new Cpu(machine.lps[0]!);
  cpu.lp.cr4Vmxe = true;
  cpu.lp.vmxon();
  return { cpu, log: new LogRing(machine.clock), machine };
}

function refused(run: () => void): KernelError {
  try {
    run();
  } catch (error) {
    if (error instanceof KernelError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('the SEAMCALL wrapper', () => {
  it('passes operands, clears the ones it does not name, and marks the caches', () => {
    let seen: bigint[] = [];
    const { cpu } = cpuWith((lp) => {
      seen = [...lp.regs.q.slice(0, 12)];
      lp.regs.q[RAX] = 0n;
    });
    cpu.lp.regs.q.fill(0xdeadn);
    setOperands(cpu, 0x1_2345_6789_a000, 2, 3);
    expect(seamcall(cpu, TDH.sysConfig)).toBe(STATUS.TDX_SUCCESS);
    expect([seen[RAX], seen[RCX], seen[RDX], seen[R8]]).toEqual([45n, 0x1_2345_6789_a000n, 2n, 3n]);
    expect(seen.slice(R8 + 1, R11 + 1)).toEqual([0n, 0n, 0n]);
    expect(cpu.cacheStateIncoherent).toBe(true);
  });

  it('makes software statuses of #GP, #UD and VMFailInvalid', () => {
    const { cpu } = cpuWith(null);
    expect(seamcall(cpu, TDH.sysInit)).toBe(SW_STATUS.TDX_SEAMCALL_VMFAILINVALID);
    expect(seamldrCall(cpu, 0)).toBe(SW_STATUS.TDX_SEAMCALL_VMFAILINVALID);
    cpu.lp.kernelMode = false;
    expect(seamcall(cpu, TDH.sysInit)).toBe(SW_STATUS.TDX_SEAMCALL_GP);
    cpu.lp.vmxoff();
    expect(seamcall(cpu, TDH.sysInit)).toBe(SW_STATUS.TDX_SEAMCALL_UD);
  });

  it('lets a machine check through', () => {
    const { cpu } = cpuWith(() => {
      throw new MachineCheck(0x1000, 'poison');
    });
    expect(() => seamcall(cpu, TDH.sysRd)).toThrow(MachineCheck);
  });

  it.each([
    [3, 4, STATUS.TDX_SUCCESS],
    [9, 10, STATUS.TDX_SUCCESS],
    [10, 10, STATUS.TDX_RND_NO_ENTROPY],
  ])('tries again while entropy is missing: %i failures take %i calls', (failures, calls, status) => {
    let made = 0;
    const { cpu } = cpuWith((lp) => {
      expect(lp.regs.q[RAX]).toBe(33n);
      lp.regs.q[RAX] = made++ < failures ? STATUS.TDX_RND_NO_ENTROPY : 0n;
    });
    expect(seamcall(cpu, TDH.sysInit)).toBe(status);
    expect(made).toBe(calls);
  });

  it('does not repeat other statuses', () => {
    let made = 0;
    const { cpu } = cpuWith((lp) => {
      made++;
      lp.regs.q[RAX] = STATUS.TDX_SYS_BUSY;
    });
    expect(seamcall(cpu, TDH.sysInit)).toBe(STATUS.TDX_SYS_BUSY);
    expect(made).toBe(1);
  });
});

describe('the initialisation variant', () => {
  it('maps software statuses to errnos without a log line', () => {
    const { cpu, log } = cpuWith(null);
    expect(refused(() => seamcallPrerr(cpu, 33, log)).errno).toBe('ENODEV');
    cpu.lp.kernelMode = false;
    expect(refused(() => seamcallPrerr(cpu, 33, log)).errno).toBe('EOPNOTSUPP');
    cpu.lp.vmxoff();
    expect(refused(() => seamcallPrerr(cpu, 33, log)).errno).toBe('EACCES');
    expect(log.entries).toEqual([]);
  });

  it('logs a module status by number and by name', () => {
    const { cpu, log } = cpuWith((lp) => {
      lp.regs.q[RAX] = 0xc000_0505_0000_0000n;
    });
    const error = refused(() => seamcallPrerr(cpu, TDH.sysRd, log));
    expect(error.errno).toBe('EIO');
    expect(error.reason.data).toMatchObject({
      leaf: 34,
      leafName: 'TDH.SYS.RD',
      status: '0xc000050500000000',
    });
    expect(log.entries.map(({ text }) => text)).toEqual([
      'SEAMCALL (0x22) failed: 0xc000050500000000 TDH.SYS.RD TDX_SYS_NOT_READY',
    ]);
  });

  it('adds the outputs where a leaf has some', () => {
    const { cpu, log } = cpuWith((lp) => {
      lp.regs.q[RAX] = STATUS.TDX_OPERAND_INVALID | 1n;
      lp.regs.q[RCX] = 0xabcn;
    });
    setOperands(cpu);
    const error = refused(() => seamcallPrerrRet(cpu, TDH.sysTdmrInit, log));
    expect(error.reason.data).toMatchObject({
      statusName: 'TDX_OPERAND_INVALID(RCX)',
      registers: { rcx: '0xabc' },
    });
    expect(log.entries[1]!.text).toBe('RCX 0xabc RDX 0x0 R8 0x0 R9 0x0 R10 0x0 R11 0x0');
  });
});
