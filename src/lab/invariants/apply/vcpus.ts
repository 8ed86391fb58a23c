/** Effects of the leaves on vCPUs, and of their entries and exits. */
import { hex } from '../../../abi/address.ts';
import { OPERAND } from '../../../abi/operands.ts';
import { PAGE_TYPE } from '../../../abi/page-types.ts';
import { RCX, RDX } from '../../../abi/registers.ts';
import { STATUS_NAME_MASK, withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { type AbstractState, type AbstractTd, type AbstractVcpu, vcpuAt } from '../abstract-state.ts';
import { type HostCall, pageIn } from '../host-call.ts';
import { type ApplyLeaf, tdIn } from './life-cycle.ts';
import { give, unfounded } from './pages.ts';

const NEVER = -1;
const ERROR = 1n << 63n;
const NON_RECOVERABLE = 1n << 62n;
const FATAL = 1n << 61n;
const HINT = 1n << 60n;
/** Class of a status, and that of statuses about a metadata field. */
const CLASS_SHIFT = 40n;
const CLASS_MASK = 0xffn;
const METADATA_CLASS = 0xcn;
/** RCX of VP.ENTER: the TDVPR's address and two flags. */
const ENTER_RESERVED = 0xffc0_0000_0000_0fffn;
const ADDRESS_BITS = 52;

/** Refusals of VP.ENTER that come after the vCPU was associated with the LP, and stay so. */
const REFUSED_ASSOCIATED: ReadonlySet<bigint> = new Set([
  STATUS.TDX_INCONSISTENT_MSR,
  STATUS.TDX_TSC_ROLLBACK,
  STATUS.TDX_INCORRECT_MSR_VALUE,
]);
const EPOCH_BUSY = withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.TD_EPOCH);
const TREE_BUSY = withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.SEPT_TREE);
const INVALID_RCX = withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);

function vcpuIn(
  state: AbstractState,
  call: HostCall,
  register: number,
): { readonly td: AbstractTd; readonly vcpu: AbstractVcpu } | undefined {
  const found = vcpuAt(state, pageIn(call, register));
  if (found === undefined) unfounded(state, `there is no vCPU at ${hex(pageIn(call, register))}`);
  return found;
}

/** @internal */
export const vpCreate: ApplyLeaf = (state, call) => {
  const td = tdIn(state, call, RDX);
  if (td === undefined) return;
  const tdvpr = pageIn(call, RCX);
  give(state, tdvpr, PAGE_TYPE.TDVPR, td);
  td.vcpus.set(tdvpr, {
    tdvpr,
    pages: [tdvpr],
    state: 'UNINITIALIZED',
    lp: null,
    entered: false,
    epoch: 0n,
    flushedAt: state.time,
    ranUntil: NEVER,
  });
};

/** @internal */
export const vpAddcx: ApplyLeaf = (state, call) => {
  const found = vcpuIn(state, call, RDX);
  if (found === undefined) return;
  give(state, pageIn(call, RCX), PAGE_TYPE.TDCX, found.td);
  found.vcpu.pages.push(pageIn(call, RCX));
};

/** @internal */
export const vpInit: ApplyLeaf = (state, call) => {
  const found = vcpuIn(state, call, RCX);
  if (found === undefined) return;
  found.vcpu.state = 'READY';
  found.vcpu.lp = call.lp;
  found.td.initialisedVcpus++;
};

/** @internal */
export const vpFlush: ApplyLeaf = (state, call) => {
  const found = vcpuIn(state, call, RCX);
  if (found === undefined) return;
  const { vcpu } = found;
  if (vcpu.lp !== call.lp) unfounded(state, 'a vCPU was flushed on an LP that does not have it');
  vcpu.lp = null;
  vcpu.flushedAt = state.time;
  vcpu.ranUntil = NEVER;
};

/** VP.RD and VP.WR associate the vCPU with the LP before they look at the field. @internal */
export const vpRdWr: ApplyLeaf = (state, call) => {
  if (call.status !== STATUS.TDX_SUCCESS && ((call.status >> CLASS_SHIFT) & CLASS_MASK) !== METADATA_CLASS)
    return;
  const found = vcpuIn(state, call, RCX);
  if (found !== undefined) found.vcpu.lp = call.lp;
};

/** VP.ENTER, whatever it returned: entered for good, entered and left again, or refused. @internal */
export const vpEnter: ApplyLeaf = (state, call) => {
  const { lp, status } = call;
  if (call.staysInTd) {
    enterVcpu(state, lp, pageIn(call, RCX));
    return;
  }
  if (isTdExit(status)) {
    if (!state.running.has(lp)) enterVcpu(state, lp, pageIn(call, RCX));
    leaveVcpu(state, lp, status);
    return;
  }
  const associated =
    REFUSED_ASSOCIATED.has(status & STATUS_NAME_MASK) ||
    status === EPOCH_BUSY ||
    status === TREE_BUSY ||
    (status === INVALID_RCX && isEnterOperand(state, call.in[RCX]!));
  if (!associated) return;
  const found = vcpuIn(state, call, RCX);
  if (found === undefined) return;
  found.vcpu.lp = lp;
  if (status === TREE_BUSY) joinEpoch(state, found.td, found.vcpu);
};

/** What is wrong with a well-formed RCX is found after the association. */
function isEnterOperand({ platform }: AbstractState, rcx: bigint): boolean {
  const address = BigInt.asUintN(ADDRESS_BITS, rcx);
  return (rcx & ENTER_RESERVED) === 0n && address >> BigInt(platform.keyIdStartBit) === 0n;
}

/** True when VP.ENTER returned from the TD, false when it was refused. */
function isTdExit(status: bigint): boolean {
  return (status & ERROR) === 0n || (status & HINT) !== 0n;
}

/** The vCPU runs on the LP from now on. @internal */
export function enterVcpu(state: AbstractState, lp: number, tdvpr: number): void {
  const found = vcpuAt(state, tdvpr);
  if (found === undefined) {
    unfounded(state, `there is no vCPU at ${hex(tdvpr)}`);
    return;
  }
  const { td, vcpu } = found;
  const running = state.running.get(lp);
  state.effects.push({
    kind: 'entered',
    tdvpr,
    lp,
    holder: vcpu.lp,
    wasEntered: vcpu.entered,
    running,
  });
  vcpu.lp = lp;
  vcpu.entered = true;
  vcpu.state = 'ACTIVE';
  joinEpoch(state, td, vcpu);
  vcpu.ranUntil = Number.POSITIVE_INFINITY;
  state.running.set(lp, tdvpr);
}

/** An entry in another epoch than the last one begins with a flush. */
function joinEpoch(state: AbstractState, td: AbstractTd, vcpu: AbstractVcpu): void {
  if (vcpu.epoch === td.epoch) return;
  vcpu.epoch = td.epoch;
  vcpu.flushedAt = state.time;
}

/** The vCPU on the LP left for the host with `status`. @internal */
export function leaveVcpu(state: AbstractState, lp: number, status: bigint): void {
  const tdvpr = state.running.get(lp);
  state.running.delete(lp);
  const found = tdvpr === undefined ? undefined : vcpuAt(state, tdvpr);
  if (found === undefined) {
    unfounded(state, `LP ${lp} left a TD in which it was not`);
    return;
  }
  const { td, vcpu } = found;
  vcpu.entered = false;
  vcpu.ranUntil = state.time;
  if ((status & FATAL) !== 0n) td.fatal = true;
  else vcpu.state = (status & NON_RECOVERABLE) !== 0n ? 'DISABLED' : 'READY';
}
