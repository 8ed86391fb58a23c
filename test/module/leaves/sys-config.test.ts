import { describe, expect, it } from 'vitest';
import { GIB } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { HKID_STATE } from '../../../src/module/kot.ts';
import { findRelease } from '../../../src/module/releases.ts';
import { moduleMachine } from '../../support/module-machine.ts';
import {
  configure,
  GLOBAL_KEYID,
  initialise,
  ONE_TDMR,
  readyModule,
  TDMR_ARRAY,
} from '../../support/ready-module.ts';

const initialised = () => initialise(moduleMachine());
const OPERANDS = { rcx: BigInt(TDMR_ARRAY), rdx: 1n, r8: BigInt(GLOBAL_KEYID) };
const invalid = (operand: bigint): bigint => STATUS.TDX_OPERAND_INVALID | operand;

describe('TDH.SYS.CONFIG', () => {
  it('waits for SYS.INIT and for LP.INIT on every LP', () => {
    const host = moduleMachine();
    expect(configure(host, [ONE_TDMR])).toBe(STATUS.TDX_SYS_CONFIG_NOT_PENDING);
    host.status(TDH.sysInit);
    host.status(TDH.sysLpInit, {}, 0);
    expect(configure(host, [ONE_TDMR])).toBe(STATUS.TDX_SYS_CONFIG_NOT_PENDING);
  });

  it('refuses operands in the order of the ABI', () => {
    const host = initialised();
    const status = (change: object): bigint => host.status(TDH.sysConfig, { ...OPERANDS, ...change });
    expect(status({ rcx: 0x10_0100n, rdx: 0n })).toBe(invalid(1n));
    expect(status({ rdx: 0n, r8: 0n })).toBe(invalid(2n));
    expect(status({ rdx: 65n })).toBe(invalid(2n));
    expect(status({ r8: 31n })).toBe(invalid(8n));
    expect(status({ r8: 64n })).toBe(invalid(8n));
    expect(status({ r8: 40n | (1n << 17n) })).toBe(invalid(8n));
    host.module.globalLock.word = 2;
    expect(status({})).toBe(STATUS.TDX_SYS_BUSY);
  });

  it('keeps the KeyID even when it fails afterwards', () => {
    const host = initialised();
    host.machine.memory.write64(TDMR_ARRAY, 0x10_1100n, 0);
    expect(host.status(TDH.sysConfig, OPERANDS)).toBe(invalid(1n));
    expect(host.module.kot.states[GLOBAL_KEYID]).toBe(HKID_STATE.RESERVED);
    expect(host.module.sysState).toBe('SYSINIT_DONE');
  });

  it('allows dynamic PAMT where KeyIDs start low enough and the release has it', () => {
    const high = initialise(moduleMachine({ keyIds: { mktme: 1, tdx: 2 }, physicalAddressBits: 52 }));
    expect(configure(high, [ONE_TDMR], { dynamicPamt: true, keyId: 2 })).toBe(invalid(8n));
    expect(configure(initialised(), [ONE_TDMR], { dynamicPamt: true })).toBe(0n);
    const old = moduleMachine({}, findRelease('1.5.16')!);
    expect(configure(initialise(old), [ONE_TDMR], { dynamicPamt: true })).toBe(invalid(8n));
  });

  it('answers what the range checks say', () => {
    expect(configure(initialised(), [ONE_TDMR, { ...ONE_TDMR, base: 3 * GIB }])).toBe(
      STATUS.TDX_NON_ORDERED_TDMR | 1n,
    );
  });
});

describe('TDH.SYS.KEY.CONFIG', () => {
  it('makes the module ready after the last package', () => {
    const host = initialised();
    expect(host.status(TDH.sysKeyConfig)).toBe(STATUS.TDX_SYS_KEY_CONFIG_NOT_PENDING);
    configure(host, [ONE_TDMR]);
    expect(host.status(TDH.sysKeyConfig, {}, 0)).toBe(0n);
    expect(host.status(TDH.sysKeyConfig, {}, 1)).toBe(STATUS.TDX_KEY_CONFIGURED);
    expect(host.module.sysState).toBe('SYSCONFIG_DONE');
    expect(host.status(TDH.sysKeyConfig, {}, 3)).toBe(0n);
    expect(host.module.sysState).toBe('SYS_READY');
    expect(host.machine.packages.map((pkg) => pkg.configuredKeyIds.has(GLOBAL_KEYID))).toEqual([true, true]);
  });

  it('can be tried again after PCONFIG failed', () => {
    const host = initialised();
    configure(host, [ONE_TDMR]);
    const [first] = host.machine.packages;
    first!.pconfigOutcome = 'device-busy';
    expect(host.status(TDH.sysKeyConfig)).toBe(STATUS.TDX_OPERAND_BUSY | 187n);
    first!.pconfigOutcome = 'entropy-error';
    expect(host.status(TDH.sysKeyConfig)).toBe(STATUS.TDX_KEY_GENERATION_FAILED);
    expect(first!.configuredKeyIds.size).toBe(0);
    first!.pconfigOutcome = 'ok';
    expect(host.status(TDH.sysKeyConfig)).toBe(0n);
  });
});

describe('TDH.SYS.TDMR.INIT', () => {
  it('advances in steps, reports whole GiB and says when there is nothing left', () => {
    const host = initialised();
    configure(host, [ONE_TDMR]);
    host.status(TDH.sysKeyConfig, {}, 0);
    host.status(TDH.sysKeyConfig, {}, 2);
    const base = BigInt(ONE_TDMR.base);
    expect(host.call(TDH.sysTdmrInit, { rcx: base, rdx: 9n })).toEqual({ rax: 0n, rcx: base, rdx: base });
    finishTdmr(host);
    expect(host.call(TDH.sysTdmrInit, { rcx: base, rdx: 9n })).toEqual({
      rax: STATUS.TDX_TDMR_ALREADY_INITIALIZED,
      rcx: base,
    });
  });

  it('refuses addresses that are no TDMR and a TDMR that is locked', () => {
    const host = readyModule();
    expect(host.status(TDH.sysTdmrInit, { rcx: BigInt(5 * GIB) })).toBe(invalid(1n));
    expect(host.status(TDH.sysTdmrInit, { rcx: BigInt(4 * GIB) + 4096n })).toBe(invalid(1n));
    expect(host.status(TDH.sysTdmrInit, { rcx: BigInt(4 * GIB) | (40n << 46n) })).toBe(invalid(1n));
    host.module.pamt.tdmrs[0]!.lock.word = 1;
    expect(host.status(TDH.sysTdmrInit, { rcx: BigInt(4 * GIB) })).toBe(STATUS.TDX_OPERAND_BUSY | 1n);
  });

  it('takes the time that was measured: 9.9 us a call', () => {
    const host = readyModule();
    const before = host.machine.clock.nowNs;
    host.status(TDH.sysTdmrInit, { rcx: BigInt(4 * GIB) });
    expect(host.machine.clock.nowNs - before).toBe(9900);
  });
});

function finishTdmr(host: ReturnType<typeof initialised>): void {
  while (host.module.pamt.tdmrs[0]!.nextToInit < host.module.pamt.tdmrs[0]!.end) {
    expect(host.status(TDH.sysTdmrInit, { rcx: BigInt(ONE_TDMR.base) })).toBe(0n);
  }
}
