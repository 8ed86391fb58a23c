import { describe, expect, it } from 'vitest';
import { GIB } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { LEVEL_4K, PAGE_TYPE } from '../../../src/abi/page-types.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { readHandoffHeader } from '../../../src/module/handoff.ts';
import { HKID_STATE } from '../../../src/module/kot.ts';
import { loadModule } from '../../../src/module/load-module.ts';
import { findRelease } from '../../../src/module/releases.ts';
import type { ModuleMachine } from '../../support/module-machine.ts';
import { initialise, ONE_TDMR, readyModule } from '../../support/ready-module.ts';

const invalid = (operand: bigint): bigint => STATUS.TDX_OPERAND_INVALID | operand;
/** The version field of RAX. */
const VERSION_1 = 0x1_0000;

/** Replaces the module's image by another of `version`, at SYSINIT_PENDING. */
function reload(host: ModuleMachine, version = '1.5.25'): ModuleMachine {
  return { ...host, module: loadModule(host.machine, findRelease(version)!) };
}

describe('TDH.SYS.SHUTDOWN', () => {
  it('leaves hand-off data and refuses every leaf but LP.SHUTDOWN', () => {
    const host = readyModule();
    expect(host.status(TDH.sysShutdown, { rcx: 1n })).toBe(0n);
    expect(readHandoffHeader(host.machine.seam.handoffData)).toMatchObject({ valid: true, hv: 1 });
    expect(host.status(TDH.sysRd)).toBe(STATUS.TDX_SYS_SHUTDOWN);
    expect(host.status(TDH.sysShutdown, { rcx: 1n })).toBe(STATUS.TDX_SYS_SHUTDOWN);
    expect(host.status(TDH.sysLpShutdown)).toBe(0n);
  });

  it('refuses formats it cannot write, reserved bits, and LPs that run a TD', () => {
    const host = readyModule();
    expect(host.status(TDH.sysShutdown, { rcx: 0n })).toBe(invalid(1n));
    expect(host.status(TDH.sysShutdown, { rcx: 2n })).toBe(invalid(1n));
    expect(host.status(TDH.sysShutdown, { rcx: 1n | (1n << 17n) })).toBe(invalid(1n));
    host.module.lpsInTd = 1;
    expect(host.status(TDH.sysShutdown, { rcx: 1n })).toBe(STATUS.TDX_SYS_BUSY);
    expect(host.module.sysState).toBe('SYS_READY');
    host.module.lpsInTd = 0;
    expect(host.status(TDH.sysShutdown, { rcx: 1n })).toBe(0n);
  });

  it('counts what an update would break, when asked to avoid it', () => {
    const host = readyModule();
    host.module.tdBuildCount = 3;
    const avoid = 1n | (1n << 16n);
    expect(host.status(TDH.sysShutdown, { rcx: avoid })).toBe(
      STATUS.TDX_UPDATE_COMPATIBILITY_SENSITIVE | 0x3_0000n,
    );
    host.module.tdBuildCount = 0;
    host.module.migrationInterruptedCount = 2;
    expect(host.status(TDH.sysShutdown, { rcx: avoid })).toBe(
      STATUS.TDX_UPDATE_COMPATIBILITY_SENSITIVE | 0x2_0001n,
    );
    expect(host.status(TDH.sysShutdown, { rcx: 1n })).toBe(0n);
  });
});

describe('TDH.SYS.LP.SHUTDOWN', () => {
  it('ends release 1.0 and nothing else', () => {
    const old = readyModule().module;
    const host = reload(readyModule(), '1.0');
    expect(host.status(TDH.sysLpShutdown)).toBe(0n);
    expect(host.status(TDH.sysInit)).toBe(STATUS.TDX_SYS_SHUTDOWN);
    expect(old.sysState).toBe('SYS_READY');
  });
});

describe('TDH.SYS.UPDATE', () => {
  it('takes over TDMRs, keys and page metadata, and is ready at once', () => {
    const before = readyModule();
    before.module.pamt.entry(4 * GIB, LEVEL_4K).type = PAGE_TYPE.TDR;
    before.module.kot.states[35] = HKID_STATE.ASSIGNED;
    before.module.kot.pendingPackages[36] = 3;
    before.module.writeBack[1]!.interruptedAt = 2;
    before.module.writeBack[1]!.flushed[36] = 1;
    before.module.tdBuildCount = 5;
    before.status(TDH.sysShutdown, { rcx: 1n });
    const after = initialise(reload(before));
    expect(after.status(TDH.sysUpdate)).toBe(0n);
    expect(after.module.sysState).toBe('SYS_READY');
    expect(after.module.pamt.tdmrs).toEqual(before.module.pamt.tdmrs);
    expect(after.module.kot.states).toEqual(before.module.kot.states);
    expect(after.module.kot.pendingPackages).toEqual(before.module.kot.pendingPackages);
    expect(after.module.writeBack).toEqual(before.module.writeBack);
    expect([after.module.globalKeyId, after.module.configuredPackages, after.module.tdBuildCount]).toEqual([
      40, 3, 5,
    ]);
    expect(after.call(TDH.phymemPageRdmd, { rcx: BigInt(4 * GIB) }).rcx).toBe(BigInt(PAGE_TYPE.TDR));
    expect(after.module.pamt.tdmrs[0]!.reserved).toEqual([
      {
        start: ONE_TDMR.base + ONE_TDMR.reserved[0]!.offset,
        end: ONE_TDMR.base + ONE_TDMR.reserved[0]!.offset + ONE_TDMR.reserved[0]!.size,
      },
    ]);
  });

  it('needs a module at the right step with data it understands', () => {
    const before = readyModule();
    expect(before.status(TDH.sysUpdate)).toBe(STATUS.TDX_SYS_STATE_INCORRECT);
    before.status(TDH.sysShutdown, { rcx: 1n });
    expect(reload(before).status(TDH.sysUpdate)).toBe(STATUS.TDX_SYS_STATE_INCORRECT);
    expect(initialise(reload(before, '1.5.20')).status(TDH.sysUpdate)).toBe(STATUS.TDX_SYS_INVALID_HANDOFF);
    const after = initialise(reload(before));
    expect(after.status(TDH.sysUpdate)).toBe(0n);
    expect(initialise(reload(after)).status(TDH.sysUpdate)).toBe(STATUS.TDX_SYS_INVALID_HANDOFF);
  });

  it('knows nothing of TDs being built from data of format 0', () => {
    const before = readyModule({ release: findRelease('1.5.20')! });
    before.module.tdBuildCount = 5;
    before.module.migrationInterruptedCount = 2;
    expect(before.status(TDH.sysShutdown)).toBe(0n);
    const after = initialise(reload(before));
    expect(after.status(TDH.sysUpdate)).toBe(0n);
    expect(after.module.sysState).toBe('SYS_READY');
    expect([after.module.tdBuildCount, after.module.migrationInterruptedCount]).toEqual([0, 0]);
  });

  it('checks features and reserved registers in version 1', () => {
    const before = readyModule();
    before.status(TDH.sysShutdown, { rcx: 1n });
    const after = initialise(reload(before));
    const update = (version: number, operands: object = {}): bigint =>
      after.status(TDH.sysUpdate + version, operands);
    expect(update(2 * VERSION_1)).toBe(invalid(0n));
    expect(update(VERSION_1, { r9: 1n << 60n })).toBe(invalid(9n));
    expect(update(VERSION_1, { r10: 1n })).toBe(invalid(10n));
    expect(update(VERSION_1, { r9: 1n << 47n })).toBe(0n);
    expect(after.module.updateCompatibility).toBe(true);
  });

  it('has no version 1 in releases before 1.5.24', () => {
    const host = reload(readyModule(), '1.5.20');
    expect(host.status(TDH.sysUpdate + VERSION_1)).toBe(invalid(0n));
  });
});
