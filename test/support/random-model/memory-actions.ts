/** Random calls on the memory of TDs, and what guests do with it. */
import { GIB, PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
import { TDG, TDH } from '../../../src/abi/leaves.ts';
import { EXIT } from '../../../src/abi/vm-exit.ts';
import type { GuestFlow } from '../../../src/lab/guest/flow.ts';
import { type AbstractTd, type EntryState, vcpuAt } from '../../../src/lab/invariants/abstract-state.ts';
import { INTR_PENDING_MSR } from '../../../src/module/pending-events.ts';
import type { Dice } from './dice.ts';
import type { GuestDeed, ModelRun } from './model-run.ts';
import { anyTd } from './td-actions.ts';

/** A TD that has memory, now and then any. */
function someTd(run: ModelRun, dice: Dice): AbstractTd | undefined {
  const built = [...run.state.tds.values()].filter(
    ({ opState, lifeCycle }) => opState !== 'UNINITIALIZED' && lifeCycle === 'KEYS_CONFIGURED',
  );
  return dice.onceIn(16) ? anyTd(run, dice) : dice.pickAny(built);
}

/** Guest ranges of 2 MiB that are used, and 4 KiB pages in each. */
const RANGES = [0, PAGE_2M, GIB] as const;
const PAGES_PER_RANGE = 5;
/** Attributes of a page for an L2 VM: valid, with R, W, X of both kinds; with R. */
const ALL_ACCESS = 0x800fn;
const READ_ONLY = 0x8001n;
const NO_PAGE = 0xffff_ffff_ffff_ffffn;

/** A guest address of one of the ranges, aligned to `level`. */
function gpa(dice: Dice, level: number): number {
  const at = dice.pick(RANGES) + (level === 0 ? dice.below(PAGES_PER_RANGE) * PAGE_4K : 0);
  const span = PAGE_4K * 512 ** level;
  return at - (at % span);
}

/** A guest address plus level of an entry in one of the states, or one made up. */
function entryKey(
  td: AbstractTd,
  dice: Dice,
  states: readonly EntryState[],
  levels: readonly number[],
): number {
  if (!dice.onceIn(6)) {
    const fitting = [...td.sept.keys()].filter(
      (key) => states.includes(td.sept.get(key)!.state) && levels.includes(key % 8),
    );
    const key = dice.pickAny(fitting);
    if (key !== undefined) return key;
  }
  const level = dice.pick(levels);
  return gpa(dice, level) + level;
}

/** A guest address plus level that has no entry, but a table above it where possible. */
function freeKey(td: AbstractTd, dice: Dice, levels: readonly number[]): number {
  const places = levels.flatMap((level) =>
    RANGES.flatMap((range) => {
      const pages = level === 0 ? PAGES_PER_RANGE : 1;
      const span = PAGE_4K * 512 ** level;
      return Array.from({ length: pages }, (_, i) => range - (range % span) + i * PAGE_4K + level);
    }),
  );
  const fitting = places.filter((key) => !td.sept.has(key) && hasTable(td, key));
  return dice.onceIn(8) ? dice.pick(places) : (dice.pickAny(fitting) ?? dice.pick(places));
}

function hasTable(td: AbstractTd, key: number): boolean {
  const above = (key % 8) + 1;
  if (above === 4) return true;
  const span = PAGE_4K * 512 ** above;
  return td.sept.get(key - (key % span) + above)?.state === 'NL_MAPPED';
}

type MemoryCall = (run: ModelRun, dice: Dice, td: AbstractTd) => void;

function page(run: ModelRun, dice: Dice): bigint {
  return BigInt(dice.onceIn(24) ? run.usedPage(dice) : run.freePage(dice));
}

/** A leaf on an existing entry that takes nothing but RCX and RDX. */
function onEntry(
  leaf: number,
  states: readonly EntryState[],
  levels: readonly number[],
  versions = 1,
): MemoryCall {
  return (run, dice, td) => {
    const rcx = BigInt(entryKey(td, dice, states, levels));
    run.call(leaf, { rcx, rdx: BigInt(td.tdr) }, dice.pick(run.hostLps()), dice.below(versions));
  };
}

const septAdd: MemoryCall = (run, dice, td) => {
  const rcx = BigInt(freeKey(td, dice, [3, 2, 1]));
  const allowExisting = BigInt(dice.below(2));
  const rdx = BigInt(td.tdr) | allowExisting;
  const version = dice.below(2);
  const l2 = version === 1 && td.l2Vms > 0 && dice.onceIn(2) ? page(run, dice) : NO_PAGE;
  const operands = { rcx, rdx, r8: page(run, dice), r9: l2, r10: NO_PAGE, r11: NO_PAGE };
  run.call(TDH.memSeptAdd, operands, dice.pick(run.hostLps()), version);
};

const pageAdd: MemoryCall = (run, dice, td) => {
  const rcx = BigInt(freeKey(td, dice, [0]));
  const operands = { rcx, rdx: BigInt(td.tdr), r8: page(run, dice), r9: 0x30_0000n };
  run.call(TDH.memPageAdd, operands, dice.pick(run.hostLps()));
};

const pageAug: MemoryCall = (run, dice, td) => {
  const level = dice.below(2);
  const rcx = BigInt(freeKey(td, dice, [level]));
  const r8 = level === 0 ? page(run, dice) : BigInt(run.largePage(dice));
  run.call(TDH.memPageAug, { rcx, rdx: BigInt(td.tdr), r8 }, dice.pick(run.hostLps()));
};

const track: MemoryCall = (run, dice, td) => {
  run.call(TDH.memTrack, { rcx: BigInt(td.tdr) }, dice.pick(run.hostLps()));
};

const demote: MemoryCall = (run, dice, td) => {
  const rcx = BigInt(entryKey(td, dice, ['BLOCKED', 'PENDING_BLOCKED', 'MAPPED', 'PENDING'], [1]));
  const pair = { r12: BigInt(run.donorPage(dice)), r13: BigInt(run.donorPage(dice)) };
  const r9 = dice.onceIn(2) ? page(run, dice) : NO_PAGE;
  const operands = { rcx, rdx: BigInt(td.tdr), r8: page(run, dice), r9, r10: NO_PAGE, r11: NO_PAGE, ...pair };
  run.call(TDH.memPageDemote, operands, dice.pick(run.hostLps()));
};

const relocate: MemoryCall = (run, dice, td) => {
  const rcx = BigInt(entryKey(td, dice, ['BLOCKED', 'PENDING_BLOCKED'], [0]));
  run.call(TDH.memPageRelocate, { rcx, rdx: BigInt(td.tdr), r8: page(run, dice) }, dice.pick(run.hostLps()));
};

const LEAVES_MAPPED: readonly EntryState[] = ['MAPPED', 'PENDING'];
const LEAVES_BLOCKED: readonly EntryState[] = ['BLOCKED', 'PENDING_BLOCKED'];
const block = onEntry(TDH.memRangeBlock, [...LEAVES_MAPPED, 'NL_MAPPED'], [0, 1, 2]);
const unblock = onEntry(TDH.memRangeUnblock, [...LEAVES_BLOCKED, 'NL_BLOCKED'], [0, 1, 2]);
const remove = onEntry(TDH.memPageRemove, LEAVES_BLOCKED, [0, 1]);

const MEMORY_CALLS: readonly MemoryCall[] = [
  septAdd,
  septAdd,
  pageAdd,
  pageAug,
  pageAug,
  pageAug,
  track,
  track,
  demote,
  demote,
  relocate,
  block,
  block,
  unblock,
  remove,
  remove,
  onEntry(TDH.memSeptRemove, ['NL_BLOCKED'], [1, 2, 3], 2),
  onEntry(TDH.memPagePromote, ['NL_BLOCKED', 'NL_MAPPED'], [1], 2),
  onEntry(TDH.memSeptRd, [...LEAVES_MAPPED, ...LEAVES_BLOCKED], [0, 1, 2]),
  onEntry(TDH.mrExtend, ['MAPPED'], [0]),
  onEntry(TDH.memRd, ['MAPPED'], [0]),
  onEntry(TDH.memWr, ['MAPPED'], [0]),
];

/** Any call on the memory of some TD. */
export function useMemory(run: ModelRun, dice: Dice): void {
  const td = someTd(run, dice);
  if (td === undefined) return;
  const interrupted = dice.onceIn(12) ? run.hostLps() : [];
  for (const lp of interrupted) lp.msrs.set(INTR_PENDING_MSR, 1n);
  dice.pick(MEMORY_CALLS)(run, dice, td);
  for (const lp of interrupted) lp.msrs.delete(INTR_PENDING_MSR);
}

/** Maps a page somewhere, with the tables that it needs. */
export function mapPage(run: ModelRun, dice: Dice): void {
  const td = someTd(run, dice);
  if (td === undefined) return;
  const lp = dice.pick(run.hostLps());
  const rdx = BigInt(td.tdr);
  const target = dice.below(2);
  const at = gpa(dice, target);
  for (let level = 3; level > target; level--) {
    const key = at - (at % (PAGE_4K * 512 ** level)) + level;
    if (td.sept.get(key)?.state === 'NL_MAPPED') continue;
    const tables = { r8: BigInt(run.freePage(dice)), r9: NO_PAGE, r10: NO_PAGE, r11: NO_PAGE };
    // A second page from elsewhere in the pool is rarely the same as the first.
    if (td.l2Vms > 0 && !dice.onceIn(4)) tables.r9 = BigInt(run.freePage(dice));
    run.call(TDH.memSeptAdd, { rcx: BigInt(key), rdx, ...tables }, lp, 1);
  }
  const operands = { rcx: BigInt(at + target), rdx, r8: BigInt(run.freePage(dice)), r9: 0x30_0000n };
  if (target === 1) operands.r8 = BigInt(run.largePage(dice));
  const adds = td.opState === 'INITIALIZED' && target === 0 && !dice.onceIn(3);
  run.call(adds ? TDH.memPageAdd : TDH.memPageAug, operands, lp);
}

/** Blocks something, tracks, and takes the page away, relocates, splits or merges it: in one go where nothing runs. */
export function changeMapping(run: ModelRun, dice: Dice): void {
  const td = someTd(run, dice);
  if (td === undefined) return;
  const lp = dice.pick(run.hostLps());
  const rdx = BigInt(td.tdr);
  const states = dice.pick<readonly EntryState[]>([['MAPPED'], LEAVES_MAPPED, ['NL_MAPPED']]);
  const rcx = BigInt(entryKey(td, dice, states, [0, 1]));
  run.call(TDH.memRangeBlock, { rcx, rdx }, lp);
  if (!dice.onceIn(4)) run.call(TDH.memTrack, { rcx: rdx }, lp);
  if (dice.onceIn(3)) run.call(TDH.memTrack, { rcx: rdx }, lp);
  const state = td.sept.get(Number(rcx))?.state;
  if (state === 'NL_BLOCKED') {
    const leaf = dice.pick([TDH.memPagePromote, TDH.memSeptRemove, TDH.memRangeUnblock]);
    run.call(leaf, { rcx, rdx }, lp);
  } else if (rcx % 8n === 1n && !dice.onceIn(3)) {
    demote(run, dice, td);
    if (!dice.onceIn(3)) mergeAgain(run, dice, td, Number(rcx));
  } else dice.pick([remove, relocate, unblock])(run, dice, td);
}

/** Promotes the table at `key`, most likely one that a page was just split into. */
function mergeAgain(run: ModelRun, dice: Dice, td: AbstractTd, key: number): void {
  const lp = dice.pick(run.hostLps());
  const [rcx, rdx] = [BigInt(key), BigInt(td.tdr)];
  run.call(TDH.memRangeBlock, { rcx, rdx }, lp);
  run.call(TDH.memTrack, { rcx: rdx }, lp);
  run.call(TDH.memPagePromote, { rcx, rdx }, lp, dice.below(2));
}

/** A VM exit that no instruction causes. */
function* event(reason: number, qualification = 0n): GuestFlow {
  yield { kind: 'instruction', reason, lengthBytes: 0, qualification };
}

const DEEDS: readonly ((dice: Dice, td: AbstractTd) => readonly [name: string, deed: GuestDeed])[] = [
  (dice, td) => {
    const rcx = BigInt(entryKey(td, dice, ['PENDING'], [0, 1]));
    return [`ACCEPT 0x${rcx.toString(16)}`, (cpu) => cpu.tdcall(TDG.memPageAccept, { rcx })];
  },
  (dice) => {
    const at = gpa(dice, 0);
    return [`read 0x${at.toString(16)}`, (cpu) => cpu.read(at, 8)];
  },
  (dice) => {
    const at = gpa(dice, 0);
    return [`write 0x${at.toString(16)}`, (cpu) => cpu.write(at, new Uint8Array(8).fill(0xa5))];
  },
  (dice, td) => {
    const rcx = BigInt(entryKey(td, dice, ['MAPPED', 'PENDING'], [0, 1]));
    const attributes = dice.pick([ALL_ACCESS, READ_ONLY, 0n]) << 16n;
    const name = `ATTR.WR 0x${rcx.toString(16)}, 0x${attributes.toString(16)}`;
    const operands = { rcx, rdx: attributes, r8: 0xffff_0000n };
    return [name, (cpu) => cpu.tdcall(TDG.memPageAttrWr, operands)];
  },
  () => ['VMCALL', (cpu) => cpu.vmcall(12n)],
  () => ['CPUID', (cpu) => cpu.cpuid(0)],
  () => ['interrupt', (cpu) => cpu.interrupt()],
  (dice) => {
    // An external interrupt mostly; now and then the end of the vCPU or, by a machine check, of the TD.
    const kind = dice.below(24);
    if (kind === 0) return ['triple fault', () => event(EXIT.TRIPLE_FAULT)];
    if (kind === 1) return ['machine check', () => event(EXIT.SMI, 1n)];
    return ['interrupt', (cpu) => cpu.interrupt()];
  },
  (dice) => {
    const leaf = dice.below(32);
    const value = (): bigint => (dice.onceIn(2) ? BigInt(gpa(dice, 0)) : dice.next64());
    const operands = { rcx: value(), rdx: value(), r8: value(), r9: value() };
    return [`TDCALL ${leaf}`, (cpu) => cpu.tdcall(leaf, operands)];
  },
];

/** A guest that runs does something. */
export function stepGuest(run: ModelRun, dice: Dice): void {
  const lp = dice.pickAny(run.guestLps());
  if (lp === undefined) return;
  const { td } = vcpuAt(run.state, run.state.running.get(lp.index)!)!;
  const [name, deed] = dice.pick([DEEDS[0]!, ...DEEDS])(dice, td);
  run.step(lp, name, deed);
}
