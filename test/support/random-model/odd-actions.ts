/** Calls that look at the state, lend pages for metadata, interrupt, or make no sense. */
import { PAGE_2M } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { REGISTER_NAMES } from '../../../src/abi/registers.ts';
import { TD_FIELDS } from '../../../src/abi/td-fields.ts';
import { VCPU_FIELDS } from '../../../src/abi/vcpu-fields.ts';
import { INTR_PENDING_MSR } from '../../../src/module/pending-events.ts';
import { ONE_TDMR } from '../ready-module.ts';
import type { Dice } from './dice.ts';
import { HOST_BUFFER, type ModelRun, type Operands } from './model-run.ts';
import { enterVcpu } from './td-actions.ts';

/** Leaf numbers tried: the host leaves of the ABI end before. */
const LEAF_LIMIT = 180;
/** Leaves that end the module, or write into any memory that the host names: a TD's too, which then is broken. */
const NOT_AT_RANDOM: ReadonlySet<number> = new Set([
  TDH.sysShutdown,
  TDH.sysUpdate,
  TDH.sysDisable,
  TDH.sysInfo,
  TDH.sysRdall,
]);
const REGISTERS = ['rcx', 'rdx', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13'] as const;

/** Values that some check somewhere cares about. */
function oddValue(run: ModelRun, dice: Dice): bigint {
  const page = BigInt(dice.onceIn(2) ? run.usedPage(dice) : run.freePage(dice));
  return dice.pick<() => bigint>([
    () => page,
    () => page | BigInt(dice.below(8)),
    () => page | (1n << BigInt(dice.below(64))),
    () => page + BigInt(dice.below(4096)),
    () => BigInt(dice.below(8)),
    () => BigInt(dice.below(4) * PAGE_2M + dice.below(4) * 4096 + dice.below(4)),
    () => BigInt(run.largePage(dice)),
    () => BigInt(ONE_TDMR.base + 512 * 2 ** 20),
    () => BigInt(ONE_TDMR.pamt4kBase),
    () => BigInt(HOST_BUFFER),
    () => 1n << BigInt(dice.below(64)),
    () => dice.next64(),
    () => 0xffff_ffff_ffff_ffffn,
  ])();
}

/** Any leaf with any registers. */
export function oddCall(run: ModelRun, dice: Dice): void {
  const leaf = dice.onceIn(16) ? dice.next() % 0x1_0000 : dice.below(LEAF_LIMIT);
  if (NOT_AT_RANDOM.has(leaf)) return;
  const operands: Operands = {};
  for (const name of REGISTERS) operands[name] = oddValue(run, dice);
  const version = dice.onceIn(4) ? dice.below(256) : 0;
  const lp = dice.pick(run.hostLps());
  if (dice.onceIn(16)) operands.rax = (dice.next64() & ~(1n << 63n)) | BigInt(leaf);
  run.call(leaf, operands, lp, version);
}

/** Leaves that take a page or a TD first, with one of their operands spoilt. */
export function spoiltCall(run: ModelRun, dice: Dice): void {
  const leaf = dice.pick(SPOILT_LEAVES);
  const td = BigInt(dice.pickAny([...run.state.tds.keys()]) ?? ONE_TDMR.base);
  const operands: Operands = { rcx: BigInt(run.freePage(dice)), rdx: td, r8: BigInt(run.freePage(dice)) };
  if (dice.onceIn(2)) operands.rcx = td;
  operands[dice.pick(REGISTER_NAMES.slice(1, 3).concat('r8') as (keyof Operands)[])] = oddValue(run, dice);
  run.call(leaf, operands, dice.pick(run.hostLps()), dice.below(2));
}

const SPOILT_LEAVES = [
  TDH.mngCreate,
  TDH.mngAddcx,
  TDH.mngKeyConfig,
  TDH.mngInit,
  TDH.vpCreate,
  TDH.vpAddcx,
  TDH.vpInit,
  TDH.vpFlush,
  TDH.memSeptAdd,
  TDH.memPageAdd,
  TDH.memPageAug,
  TDH.memPageRelocate,
  TDH.mrFinalize,
  TDH.mngVpflushdone,
  TDH.mngKeyFreeid,
  TDH.phymemPageReclaim,
  TDH.phymemPageWbinvd,
] as const;

/** PHYMEM.PAGE.RDMD of a page. */
export function readPage(run: ModelRun, dice: Dice): void {
  const page = dice.onceIn(3) ? run.freePage(dice) : run.usedPage(dice);
  run.call(TDH.phymemPageRdmd, { rcx: BigInt(page) }, dice.pick(run.hostLps()));
}

/** Dynamic PAMT: PAMT.ADD where a range has no pair yet, now and then PAMT.REMOVE. */
export function movePair(run: ModelRun, dice: Dice): void {
  if (!run.dynamicPamt && !dice.onceIn(8)) return;
  const range = run.pairedRange(dice);
  const lp = dice.pick(run.hostLps());
  const rcx = BigInt(range) | 1n;
  if (run.state.pairs.has(range) && !dice.onceIn(4)) run.call(TDH.phymemPamtRemove, { rcx }, lp);
  else {
    const pair = { rdx: BigInt(run.donorPage(dice)), r8: BigInt(run.donorPage(dice)) };
    run.call(TDH.phymemPamtAdd, { rcx, ...pair }, lp);
  }
}

/** PHYMEM.CACHE.WB, with or without an interrupt waiting. */
export function writeBack(run: ModelRun, dice: Dice): void {
  const lp = dice.pick(run.hostLps());
  if (dice.onceIn(3)) lp.msrs.set(INTR_PENDING_MSR, 1n);
  run.call(TDH.phymemCacheWb, { rcx: BigInt(dice.below(2)) }, lp);
  lp.msrs.delete(INTR_PENDING_MSR);
}

/** VP.ENTER with an LP that lost its time or its MSRs. */
export function enterOddly(run: ModelRun, dice: Dice): void {
  const lps = run.hostLps();
  const kind = dice.below(2);
  for (const lp of lps) {
    if (kind === 0) lp.fixedTsc = 1n;
    else lp.msrs.set(0x3b, 5n);
  }
  enterVcpu(run, dice);
  for (const lp of lps) {
    lp.fixedTsc = null;
    lp.msrs.delete(0x3b);
  }
}

/** MNG.RD, MNG.WR, VP.RD or VP.WR of any field of a TD or vCPU: some TDs are debug TDs, whose host may write much. */
export function useMetadata(run: ModelRun, dice: Dice): void {
  const td = dice.pickAny([...run.state.tds.values()]);
  if (td === undefined) return;
  const vcpu = dice.onceIn(2) ? dice.pickAny([...td.vcpus.values()]) : undefined;
  const writes = dice.onceIn(2);
  const fields = vcpu === undefined ? TD_FIELDS : VCPU_FIELDS;
  const fitting = fields.filter(({ debug: [readable, writable] }) => (writes ? writable : readable) !== 0n);
  const rdx = dice.onceIn(8) ? dice.next64() : dice.pick(dice.onceIn(4) ? fields : fitting).id;
  const [rd, wr] = vcpu === undefined ? [TDH.mngRd, TDH.mngWr] : [TDH.vpRd, TDH.vpWr];
  const r8 = dice.onceIn(2) ? BigInt(dice.below(4)) : dice.next64();
  const operands = { rcx: BigInt(vcpu?.tdvpr ?? td.tdr), rdx, r8, r9: dice.next64() };
  const holder = run.hostLps().find(({ index }) => index === vcpu?.lp);
  const lp = holder === undefined || dice.onceIn(6) ? dice.pick(run.hostLps()) : holder;
  run.call(writes ? wr : rd, operands, lp, writes ? 0 : dice.below(2));
}
