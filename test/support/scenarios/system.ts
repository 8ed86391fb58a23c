/** Scenarios of the module itself: initialisation, configuration, its metadata, and an update. */
import { GIB, MIB, PAGE_4K } from '../../../src/abi/address.ts';
import { GLOBAL_FIELDS } from '../../../src/abi/global-fields.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import type { TdmrInfo } from '../../../src/abi/tdmr-info.ts';
import { ONE_TDMR } from '../ready-module.ts';
import type { ScenarioHost } from './scenario-host.ts';
import { ScenarioTd } from './scenario-td.ts';

const BUFFER = 0x40_0000n;
const ALL = 0xffff_ffff_ffff_ffffn;

/** Every leaf in a state in which most of them are refused. */
function callEveryLeaf(host: ScenarioHost): void {
  for (const leaf of Object.values(TDH)) host.call(leaf, { rcx: 0x123n, rdx: ALL });
}

/** What SYS.INIT and LP.INIT refuse, one change of the platform after the other, and then the way to ready. */
export function initialisation(host: ScenarioHost): void {
  callEveryLeaf(host);
  const wrongForAll: readonly (readonly [change: object, undo: object])[] = [
    [{ msr: { '0x1a0': '0x440081' } }, { msr: { '0x1a0': '0x40081' } }],
    [{ msr: { '0x10a': '0x0' } }, { msr: { '0x10a': '0xd28ffeb' } }],
    [{ seam_caps: '0x0' }, { seam_caps: '0x7f' }],
    [{ rng_fail: 1 }, { rng_fail: 0 }],
    [{ cpuid: { '7.0': ['0x2', '0x0', '0x0', '0x0'] } }, { cpuid: { '7.0': CPUID_7 } }],
  ];
  for (const [change, undo] of wrongForAll) {
    host.env(change);
    host.call(TDH.sysInit);
    host.env(undo);
  }
  host.call(TDH.sysInit, { rcx: 1n });
  host.whileHeld({ obj: 'SYS' }, 'exclusive', () => host.call(TDH.sysInit));
  host.call(TDH.sysLpInit);
  host.must(TDH.sysInit);
  host.call(TDH.sysInit);
  const last = host.lps - 1;
  host.env({ lp: last, msr: { '0x48b': '0xffffffff00200000' } });
  host.call(TDH.sysLpInit, {}, last);
  host.env({ lp: last, cpuid: { '7.0': ['0x2', '0x0', '0x0', '0x0'] } });
  host.call(TDH.sysLpInit, {}, last);
  host.call(TDH.sysConfig, { rcx: BUFFER, rdx: 1n });
  for (let lp = 0; lp < last; lp++) host.must(TDH.sysLpInit, {}, lp);
  host.call(TDH.sysLpInit);
  host.call(TDH.sysKeyConfig);
}

const CPUID_7 = ['0x2', '0xf3bfbfff', '0xbb417ffe', '0xffdd4432'];

/** Wrong TDMRs, and right ones; wrong keys, and right ones. */
export function configuration(host: ScenarioHost): void {
  host.initialise();
  const second: TdmrInfo = { ...ONE_TDMR, base: 8 * GIB, pamt1gBase: 7 * GIB, pamt2mBase: 7 * GIB + MIB };
  const beside: TdmrInfo = { ...second, pamt4kBase: 7 * GIB + 4 * MIB, reserved: [] };
  const wrong: readonly (readonly TdmrInfo[])[] = [
    [{ ...ONE_TDMR, base: ONE_TDMR.base + MIB }],
    [{ ...ONE_TDMR, size: 0 }],
    [beside, ONE_TDMR],
    [ONE_TDMR, { ...beside, base: ONE_TDMR.base }],
    [{ ...ONE_TDMR, pamt4kSize: 4 * MIB - PAGE_4K }],
    [{ ...ONE_TDMR, pamt2mBase: ONE_TDMR.pamt2mBase + 1 }],
    [{ ...ONE_TDMR, pamt1gBase: ONE_TDMR.base + GIB - PAGE_4K }],
    [ONE_TDMR, second],
    [{ ...ONE_TDMR, pamt4kBase: 3 * GIB }],
    [{ ...ONE_TDMR, base: 2 * GIB, size: 2 * GIB, pamt4kSize: 8 * MIB, pamt2mSize: 4 * PAGE_4K }],
    [{ ...ONE_TDMR, reserved: [{ offset: 1, size: PAGE_4K }] }],
    [{ ...ONE_TDMR, reserved: [{ offset: GIB, size: PAGE_4K }] }],
    [{ ...ONE_TDMR, reserved: [2, 1].map((i) => ({ offset: i * MIB, size: PAGE_4K })) }],
  ];
  for (const infos of wrong) host.configure(infos);
  host.call(TDH.sysConfig, { rcx: BUFFER + 8n, rdx: 1n, r8: BigInt(host.firstPrivateKeyId) });
  host.call(TDH.sysConfig, { rcx: BUFFER, rdx: 65n, r8: BigInt(host.firstPrivateKeyId) });
  host.call(TDH.sysConfig, { rcx: BUFFER, rdx: 1n, r8: BigInt(host.firstPrivateKeyId - 1) });
  host.configure([ONE_TDMR, beside]);
  host.configure([ONE_TDMR, beside]);
  host.env({ pconfig: 5 });
  host.call(TDH.sysKeyConfig);
  host.env({ pconfig: 2 });
  host.call(TDH.sysKeyConfig);
  host.env({ pconfig: 0 });
  host.must(TDH.sysKeyConfig);
  host.call(TDH.sysKeyConfig);
  host.call(TDH.sysTdmrInit, { rcx: BigInt(ONE_TDMR.base) });
  for (const lp of host.packageLps.slice(1)) host.must(TDH.sysKeyConfig, {}, lp);
  host.call(TDH.sysTdmrInit, { rcx: BigInt(ONE_TDMR.base) + 1n });
  host.call(TDH.sysTdmrInit, { rcx: BigInt(GIB) });
  host.whileHeld({ obj: 'TDMR', index: 1 }, 1, () =>
    host.call(TDH.sysTdmrInit, { rcx: BigInt(beside.base) }),
  );
  host.repeat(TDH.sysTdmrInit, { rcx: BigInt(beside.base) }, 255);
  host.call(TDH.phymemPageRdmd, { rcx: BigInt(beside.base) });
  host.repeat(TDH.sysTdmrInit, { rcx: BigInt(beside.base) }, 2);
  host.call(TDH.phymemPageRdmd, { rcx: BigInt(beside.base) });
  host.call(TDH.phymemPageRdmd, { rcx: BigInt(ONE_TDMR.base) });
  callEveryLeaf(host);
}

/** The module's own fields: each, all at once, and ids that name none. */
export function metadata(host: ScenarioHost): void {
  host.call(TDH.sysRdall, { rdx: BUFFER, r8: ALL });
  host.initialise();
  for (const { id } of GLOBAL_FIELDS) host.call(TDH.sysRd, { rdx: id });
  for (const rdx of [ALL, 0n, 1n << 62n, 0x0a00_0003_0000_0008n]) host.call(TDH.sysRd, { rdx });
  for (const rdx of [BUFFER, BUFFER + 8n, ALL]) host.call(TDH.sysRdall, { rdx, r8: ALL });
  host.expectMemory(Number(BUFFER), PAGE_4K, 0);
  host.call(TDH.sysInfo, { rcx: BUFFER, rdx: 1024n, r8: BUFFER + 2048n, r9: 32n });
  host.expectMemory(Number(BUFFER), 1024, 0);
  for (const rdx of [0n, 1023n, ALL]) host.call(TDH.sysInfo, { rcx: BUFFER, rdx, r8: BUFFER, r9: 32n });
}

/** A TD lives through a module update: shutdown, a new image, SYS.UPDATE. */
export function update(host: ScenarioHost): void {
  host.bringUp();
  const td = new ScenarioTd(host);
  td.addTables(0);
  td.addMeasured(0, 0x30_0000, 7);
  td.addVcpu(0);
  host.call(TDH.sysShutdown, { rcx: 0x1_0001n });
  host.must(TDH.mrFinalize, { rcx: td.tdr });
  td.enter();
  host.call(TDH.sysShutdown, { rcx: 1n }, 1);
  td.interrupt();
  for (const rcx of [0n, 2n, 0x2_0001n]) host.call(TDH.sysShutdown, { rcx });
  host.must(TDH.sysShutdown, { rcx: 0x1_0001n });
  callEveryLeaf(host);
  host.recorder.record({ t: 'reload' });
  host.call(TDH.sysUpdate);
  host.initialise();
  host.call(TDH.sysUpdate | (1 << 16), { r9: ALL });
  host.must(TDH.sysUpdate);
  host.call(TDH.sysUpdate);
  host.call(TDH.mngRd, { rcx: td.tdr, rdx: 0x8210_0003_0000_0001n });
  td.tdcall(1);
  td.interrupt();
  td.tearDown();
}
