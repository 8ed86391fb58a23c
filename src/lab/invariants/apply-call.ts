/** Carries the abstract state over a SEAMCALL or a VM exit of a guest, from the registers before and after it. */
import { TDG, TDH } from '../../abi/leaves.ts';
import { RAX, RCX } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { type AbstractState, vcpuAt } from './abstract-state.ts';
import {
  type ApplyLeaf,
  mngAddcx,
  mngCreate,
  mngInit,
  mngKeyConfig,
  mngKeyFreeid,
  mngRd,
  mngVpflushdone,
  mrFinalize,
  phymemCacheWb,
  phymemPageRdmd,
  phymemPageReclaim,
} from './apply/life-cycle.ts';
import {
  acceptPage,
  memPageAdd,
  memPageAug,
  memPageDemote,
  memPagePromote,
  memPageRelocate,
  memPageRemove,
  memRangeBlock,
  memRangeUnblock,
  memSeptAdd,
  memSeptRd,
  memSeptRemove,
  memTrack,
} from './apply/memory.ts';
import { phymemPamtAdd, phymemPamtRemove } from './apply/pairs.ts';
import { enterVcpu, leaveVcpu, vpAddcx, vpCreate, vpEnter, vpFlush, vpInit, vpRdWr } from './apply/vcpus.ts';
import type { HostCall } from './host-call.ts';

/** What a leaf does when it succeeds. A leaf that is not here changes nothing that the state has. */
const ON_SUCCESS: ReadonlyMap<number, ApplyLeaf> = new Map([
  [TDH.mngCreate, mngCreate],
  [TDH.mngKeyConfig, mngKeyConfig],
  [TDH.mngAddcx, mngAddcx],
  [TDH.mngInit, mngInit],
  [TDH.mngRd, mngRd],
  [TDH.mrFinalize, mrFinalize],
  [TDH.mngVpflushdone, mngVpflushdone],
  [TDH.mngKeyFreeid, mngKeyFreeid],
  [TDH.phymemPageReclaim, phymemPageReclaim],
  [TDH.phymemPageRdmd, phymemPageRdmd],
  [TDH.phymemPamtAdd, phymemPamtAdd],
  [TDH.phymemPamtRemove, phymemPamtRemove],
  [TDH.vpCreate, vpCreate],
  [TDH.vpAddcx, vpAddcx],
  [TDH.vpInit, vpInit],
  [TDH.vpFlush, vpFlush],
  [TDH.memPageAdd, memPageAdd],
  [TDH.memPageAug, memPageAug],
  [TDH.memPageDemote, memPageDemote],
  [TDH.memPagePromote, memPagePromote],
  [TDH.memPageRelocate, memPageRelocate],
  [TDH.memPageRemove, memPageRemove],
  [TDH.memRangeBlock, memRangeBlock],
  [TDH.memRangeUnblock, memRangeUnblock],
  [TDH.memSeptRd, memSeptRd],
  [TDH.memSeptRemove, memSeptRemove],
  [TDH.memTrack, memTrack],
]);

/** Leaves that have done something even when they were refused or interrupted. */
const ON_ANY_STATUS: ReadonlyMap<number, ApplyLeaf> = new Map([
  [TDH.vpEnter, vpEnter],
  [TDH.vpRd, vpRdWr],
  [TDH.vpWr, vpRdWr],
  [TDH.memSeptAdd, memSeptAdd],
  [TDH.phymemCacheWb, phymemCacheWb],
]);

/** Applies a SEAMCALL that the module answered. @public */
export function applyCall(state: AbstractState, call: HostCall): void {
  begin(state);
  const apply =
    call.status === STATUS.TDX_SUCCESS
      ? (ON_SUCCESS.get(call.leaf) ?? ON_ANY_STATUS.get(call.leaf))
      : ON_ANY_STATUS.get(call.leaf);
  apply?.(state, call);
}

/** Applies a vCPU's first step on an LP, while the VP.ENTER that brought it there has not returned. @public */
export function applyEntry(state: AbstractState, lp: number, tdvpr: number): void {
  begin(state);
  enterVcpu(state, lp, tdvpr);
}

/** Applies the TDCALL of a guest that went on afterwards: registers before and after. @public */
export function applyTdcall(
  state: AbstractState,
  lp: number,
  before: BigUint64Array,
  after: BigUint64Array,
): void {
  begin(state);
  const found = vcpuAt(state, state.running.get(lp) ?? -1);
  if (found === undefined || before[RAX] !== BigInt(TDG.memPageAccept)) return;
  acceptPage(state, found.td, before[RCX]!, after[RAX]!);
}

/** Applies a TD exit that came after VP.ENTER had returned to the lab; `status` is what the host finds in RAX. @public */
export function applyTdExit(state: AbstractState, lp: number, status: bigint): void {
  begin(state);
  leaveVcpu(state, lp, status);
}

function begin(state: AbstractState): void {
  state.time++;
  state.effects = [];
}
