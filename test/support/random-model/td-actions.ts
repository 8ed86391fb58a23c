/** Random steps in the life of TDs and vCPUs: mostly the ones that get somewhere, sometimes others. */
import { TDH } from '../../../src/abi/leaves.ts';
import { encodeTdParams } from '../../../src/abi/td-params.ts';
import type { AbstractTd, AbstractVcpu } from '../../../src/lab/invariants/abstract-state.ts';
import type { Dice } from './dice.ts';
import { HOST_BUFFER, type ModelRun } from './model-run.ts';

/** Few KeyIDs, so that they are used again. */
const KEY_IDS = [41, 42, 43, 44] as const;
const MAX_TDS = 3;
const TDCS_PAGES = 6;
const TDVPS_PAGES = 6;
const PAGES_PER_L2_VM = 3;
const MAX_VCPUS = 3;
const DEBUG = 1n;
const SEPT_VE_DISABLE = 1n << 28n;
/** Steps that suffice to build a TD, or to end one. */
const BUILD_STEPS = 60;

export function anyTd(run: ModelRun, dice: Dice): AbstractTd | undefined {
  return dice.pickAny([...run.state.tds.values()]);
}

export function anyVcpu(td: AbstractTd, dice: Dice): AbstractVcpu | undefined {
  return dice.pickAny([...td.vcpus.values()]);
}

function address(page: number): bigint {
  return BigInt(page);
}

/** MNG.CREATE. */
export function createTd(run: ModelRun, dice: Dice): void {
  const lp = dice.pick(run.hostLps());
  const free = KEY_IDS.filter((keyId) => run.state.keyIds.get(keyId)!.state === 'FREE');
  const keyId = dice.onceIn(8) ? 38 + dice.below(10) : (dice.pickAny(free) ?? KEY_IDS[0]);
  run.call(TDH.mngCreate, { rcx: address(run.freePage(dice)), rdx: BigInt(keyId) }, lp);
}

/** The next step towards a TD that runs. */
export function advanceTd(run: ModelRun, dice: Dice, chosen = anyTd(run, dice)): void {
  const td = chosen;
  if (td === undefined) {
    createTd(run, dice);
    return;
  }
  const lp = dice.pick(run.hostLps());
  const tdr = address(td.tdr);
  if (td.lifeCycle === 'HKID_ASSIGNED') run.call(TDH.mngKeyConfig, { rcx: tdr }, lp);
  else if (td.lifeCycle !== 'KEYS_CONFIGURED') endStep(run, dice, td);
  else if (td.tdcs.length < TDCS_PAGES + (td.opState === 'UNINITIALIZED' ? td.keyId % 2 : 0)) {
    run.call(TDH.mngAddcx, { rcx: address(run.freePage(dice)), rdx: tdr }, lp);
  } else if (td.opState === 'UNINITIALIZED') initialise(run, dice, td);
  else if (td.opState === 'INITIALIZED') buildVcpus(run, dice, td);
}

function initialise(run: ModelRun, dice: Dice, td: AbstractTd): void {
  const lp = dice.pick(run.hostLps());
  const params = encodeTdParams({
    attributes: dice.pick([0n, DEBUG, SEPT_VE_DISABLE]),
    xfam: 7n,
    maxVcpus: MAX_VCPUS,
    eptpControls: 6n | (3n << 3n),
    configFlags: 0n,
    tscFrequency: 40,
    mrConfigId: new Uint8Array(48),
    mrOwner: new Uint8Array(48),
    mrOwnerConfig: new Uint8Array(48),
    cpuid: [],
  });
  // Every second TD has room for an L2 VM.
  params[18] = td.tdcs.length - TDCS_PAGES;
  run.host.machine.memory.write(HOST_BUFFER, params, 0);
  run.call(TDH.mngInit, { rcx: address(td.tdr), rdx: BigInt(HOST_BUFFER) }, lp);
}

function buildVcpus(run: ModelRun, dice: Dice, td: AbstractTd): void {
  const lp = dice.pick(run.hostLps());
  const needed = TDVPS_PAGES + PAGES_PER_L2_VM * td.l2Vms;
  const unfinished = [...td.vcpus.values()].find(({ state }) => state === 'UNINITIALIZED');
  if (unfinished === undefined) {
    if (td.vcpus.size === 0 || (td.vcpus.size < MAX_VCPUS && dice.onceIn(2))) {
      run.call(TDH.vpCreate, { rcx: address(run.freePage(dice)), rdx: address(td.tdr) }, lp);
    } else run.call(TDH.mrFinalize, { rcx: address(td.tdr) }, lp);
    return;
  }
  const tdvpr = address(unfinished.tdvpr);
  if (unfinished.pages.length < needed) {
    run.call(TDH.vpAddcx, { rcx: address(run.freePage(dice)), rdx: tdvpr }, lp);
    return;
  }
  const version = dice.below(2);
  run.call(TDH.vpInit, { rcx: tdvpr, r8: BigInt(dice.below(MAX_VCPUS + 1)) }, lp, version);
}

/** Takes a TD as far as INITIALIZED or RUNNABLE in one go. */
export function buildTd(run: ModelRun, dice: Dice): void {
  const before = new Set(run.state.tds.keys());
  if (before.size >= MAX_TDS) return;
  createTd(run, dice);
  const tdr = [...run.state.tds.keys()].find((key) => !before.has(key));
  const td = run.state.tds.get(tdr ?? -1);
  if (td === undefined) return;
  const goal = dice.onceIn(5) ? 'INITIALIZED' : 'RUNNABLE';
  for (let i = 0; i < BUILD_STEPS && td.opState !== goal; i++) advanceTd(run, dice, td);
}

/** The next step towards a TD's end, or several. */
export function endTd(run: ModelRun, dice: Dice, chosen = anyTd(run, dice)): void {
  const td = chosen;
  if (td === undefined) return;
  const all = dice.onceIn(2);
  for (let i = 0; i < BUILD_STEPS && run.state.tds.has(td.tdr); i++) {
    endStep(run, dice, td);
    if (!all) return;
  }
}

function endStep(run: ModelRun, dice: Dice, td: AbstractTd): void {
  const anyLp = dice.pick(run.hostLps());
  if (td.lifeCycle === 'TEARDOWN') {
    const owned = [...run.state.pages].filter(([, page]) => page.owner === td.tdr).map(([at]) => at);
    const page = dice.onceIn(12) ? td.tdr : (dice.pickAny(owned) ?? td.tdr);
    run.call(TDH.phymemPageReclaim, { rcx: address(page) }, anyLp);
  } else if (td.lifeCycle === 'BLOCKED') {
    const { pendingPackages } = run.state.keyIds.get(td.keyId)!;
    if (pendingPackages === 0 || dice.onceIn(4)) run.call(TDH.mngKeyFreeid, { rcx: address(td.tdr) }, anyLp);
    else run.call(TDH.phymemCacheWb, { rcx: dice.onceIn(6) ? 1n : 0n }, anyLp);
  } else {
    const associated = [...td.vcpus.values()].filter(({ lp, entered }) => lp !== null && !entered);
    const vcpu = dice.pickAny(associated);
    if (vcpu === undefined || dice.onceIn(8)) run.call(TDH.mngVpflushdone, { rcx: address(td.tdr) }, anyLp);
    else flush(run, dice, vcpu);
  }
}

function flush(run: ModelRun, dice: Dice, vcpu: AbstractVcpu): void {
  const lps = run.host.machine.lps;
  const lp = dice.onceIn(6) ? dice.pick(lps) : lps[vcpu.lp ?? 0]!;
  run.call(TDH.vpFlush, { rcx: address(vcpu.tdvpr) }, lp);
}

/** VP.FLUSH of any vCPU. */
export function flushVcpu(run: ModelRun, dice: Dice): void {
  const td = anyTd(run, dice);
  const vcpu = td === undefined ? undefined : anyVcpu(td, dice);
  if (vcpu !== undefined) flush(run, dice, vcpu);
}

/** VP.ENTER, mostly where the vCPU was before. One LP is left to the host. */
export function enterVcpu(run: ModelRun, dice: Dice): void {
  const runnable = [...run.state.tds.values()].filter(({ opState }) => opState === 'RUNNABLE');
  const td = dice.pickAny(runnable);
  const vcpu = td === undefined ? undefined : anyVcpu(td, dice);
  const lps = run.hostLps();
  if (vcpu === undefined || lps.length < 2) return;
  const own = vcpu.lp === null ? undefined : run.host.machine.lps[vcpu.lp];
  const flags = dice.onceIn(16) ? BigInt(1 + dice.below(3)) << 52n : 0n;
  const lp = own !== undefined && lps.includes(own) && !dice.onceIn(8) ? own : dice.pick(lps);
  run.call(TDH.vpEnter, { rcx: address(vcpu.tdvpr) | flags }, lp);
}
