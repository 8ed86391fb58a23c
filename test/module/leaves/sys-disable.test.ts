import { describe, expect, it } from 'vitest';
import { GIB } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { INTR_PENDING_MSR } from '../../../src/module/pending-events.ts';
import { findRelease } from '../../../src/module/releases.ts';
import type { TdxModule } from '../../../src/module/tdx-module.ts';
import { moduleMachine } from '../../support/module-machine.ts';
import { configure, finish, initialise, ONE_TDMR, readyModule } from '../../support/ready-module.ts';

function ready() {
  const loaded = initialise(moduleMachine({}, findRelease('2.0.08')!));
  configure(loaded, [ONE_TDMR]);
  finish(loaded, [ONE_TDMR]);
  return loaded;
}

describe('TDH.SYS.DISABLE', () => {
  it('gives all private memory back, readable by anybody', () => {
    const { machine, status } = ready();
    const { memory } = machine;
    memory.write(4 * GIB, new Uint8Array(4096).fill(1), 41);
    memory.write(5 * GIB, new Uint8Array(64).fill(2), 0);
    expect(memory.claimedRanges()).not.toEqual([]);
    expect(status(TDH.sysDisable)).toBe(0n);
    expect(memory.claimedRanges()).toEqual([]);
    expect([memory.ownerAt(4 * GIB), memory.read(4 * GIB, 1, 0)[0]]).toEqual([0, 0]);
    expect(memory.read(5 * GIB, 1, 0)[0]).toBe(2);
  });

  it('leaves a module that another kernel initialises from scratch', () => {
    const loaded = ready();
    const { machine, status } = loaded;
    expect(status(TDH.sysDisable)).toBe(0n);
    expect(status(TDH.sysKeyConfig)).toBe(STATUS.TDX_SYS_KEY_CONFIG_NOT_PENDING);
    const again = { ...loaded, module: machine.seam.module as TdxModule };
    initialise(again);
    configure(again, [ONE_TDMR]);
    finish(again, [ONE_TDMR]);
    expect(again.module.sysState).toBe('SYS_READY');
  });

  it('stops for an event of the host', () => {
    const { machine, status } = ready();
    machine.lps[0]!.wrmsr(INTR_PENDING_MSR, 1n);
    expect(status(TDH.sysDisable)).toBe(STATUS.TDX_INTERRUPTED_RESUMABLE);
    machine.lps[0]!.wrmsr(INTR_PENDING_MSR, 0n);
    expect(status(TDH.sysDisable)).toBe(0n);
  });

  it('is refused while an LP runs a TD', () => {
    const { module, machine, status } = ready();
    module.lpsInTd = 1;
    expect(status(TDH.sysDisable)).toBe(STATUS.TDX_SYS_BUSY);
    expect(machine.seam.module).toBe(module);
  });

  it('is not there where the feature is not enumerated', () => {
    expect(readyModule().status(TDH.sysDisable)).toBe(STATUS.TDX_OPERAND_INVALID);
  });
});
