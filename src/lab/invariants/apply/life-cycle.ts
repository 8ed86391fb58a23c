/** Effects of the leaves of a TD's life: creation, keys, construction, end. All but CACHE.WB act only when they succeed. */
import { hex } from '../../../abi/address.ts';
import { PAGE_TYPE } from '../../../abi/page-types.ts';
import { R8, RCX, RDX } from '../../../abi/registers.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { TD_PARAMS_AT, TD_PARAMS_BYTES } from '../../../abi/td-params.ts';
import { type AbstractState, type AbstractTd, pageHolding } from '../abstract-state.ts';
import { type HostCall, pageIn } from '../host-call.ts';
import { answered, give, giveBack, unfounded } from './pages.ts';

const LEVEL_MASK = 0b111n;
/** Types of pages that nobody has. */
const FREE_TYPES: ReadonlySet<bigint> = new Set([BigInt(PAGE_TYPE.NDA), BigInt(PAGE_TYPE.RSVD)]);

const FREE_TYPES_DYNAMIC: ReadonlySet<bigint> = new Set([...FREE_TYPES, BigInt(PAGE_TYPE.PAMT)]);

/** What a call does to the state. @internal */
export type ApplyLeaf = (state: AbstractState, call: HostCall) => void;

/** The TD whose TDR is in `register`; without one the call should not have succeeded. @internal */
export function tdIn(state: AbstractState, call: HostCall, register: number): AbstractTd | undefined {
  const td = state.tds.get(pageIn(call, register));
  if (td === undefined) unfounded(state, `there is no TD at ${hex(pageIn(call, register))}`);
  return td;
}

/** @internal */
export const mngCreate: ApplyLeaf = (state, call) => {
  const tdr = pageIn(call, RCX);
  const keyId = Number(call.in[RDX]!);
  give(state, tdr, PAGE_TYPE.TDR, null);
  const key = state.keyIds.get(keyId);
  if (key === undefined) unfounded(state, `KeyID ${keyId} is not private`);
  else {
    const { state: before, cachedPackages } = key;
    state.effects.push({ kind: 'key', change: 'assigned', keyId, before, cachedPackages });
    key.state = 'ASSIGNED';
  }
  state.tds.set(tdr, {
    tdr,
    keyId,
    lifeCycle: 'HKID_ASSIGNED',
    fatal: false,
    configuredPackages: 0,
    opState: 'UNINITIALIZED',
    l2Vms: 0,
    tdcs: [],
    children: 0,
    epoch: 0n,
    vcpus: new Map(),
    initialisedVcpus: 0,
    sept: new Map(),
    l2Tables: [new Map(), new Map(), new Map()],
  });
};

/** @internal */
export const mngKeyConfig: ApplyLeaf = (state, call) => {
  const td = tdIn(state, call, RCX);
  if (td === undefined) return;
  const packageBit = 1 << state.platform.packages[call.lp]!;
  td.configuredPackages |= packageBit;
  state.keyIds.get(td.keyId)!.cachedPackages |= packageBit;
  if (td.configuredPackages === state.platform.configuredPackages) td.lifeCycle = 'KEYS_CONFIGURED';
};

/** @internal */
export const mngAddcx: ApplyLeaf = (state, call) => {
  const td = tdIn(state, call, RDX);
  if (td === undefined) return;
  give(state, pageIn(call, RCX), PAGE_TYPE.TDCX, td);
  td.tdcs.push(pageIn(call, RCX));
};

/** @internal */
export const mngInit: ApplyLeaf = (state, call) => {
  const td = tdIn(state, call, RCX);
  if (td === undefined) return;
  const params = call.hostMemory(Number(call.in[RDX]!), TD_PARAMS_BYTES);
  td.l2Vms = params[TD_PARAMS_AT.NUM_L2_VMS]!;
  td.opState = 'INITIALIZED';
  td.epoch = 1n;
};

/** @internal */
export const mrFinalize: ApplyLeaf = (state, call) => {
  const td = tdIn(state, call, RCX);
  if (td !== undefined) td.opState = 'RUNNABLE';
};

/** @internal */
export const mngVpflushdone: ApplyLeaf = (state, call) => {
  const td = tdIn(state, call, RCX);
  if (td === undefined) return;
  td.lifeCycle = 'BLOCKED';
  state.effects.push({ kind: 'blocked', td });
  const key = state.keyIds.get(td.keyId)!;
  key.state = 'FLUSHED';
  key.pendingPackages = state.platform.configuredPackages;
};

/** A cycle works on the KeyIDs that are flushed at its start, however often it is interrupted. @internal */
export const phymemCacheWb: ApplyLeaf = (state, call) => {
  const done = call.status === STATUS.TDX_SUCCESS;
  if (!done && call.status !== STATUS.TDX_INTERRUPTED_RESUMABLE) return;
  const packageId = state.platform.packages[call.lp]!;
  if (call.in[RCX] === 0n) {
    const flushed = [...state.keyIds].filter(([, key]) => key.state === 'FLUSHED').map(([keyId]) => keyId);
    state.writeBacks.set(packageId, flushed);
  }
  if (!done) return;
  for (const keyId of state.writeBacks.get(packageId) ?? []) {
    const key = state.keyIds.get(keyId)!;
    key.pendingPackages &= ~(1 << packageId);
    key.cachedPackages &= ~(1 << packageId);
  }
};

/** @internal */
export const mngKeyFreeid: ApplyLeaf = (state, call) => {
  const td = tdIn(state, call, RCX);
  if (td === undefined) return;
  const { keyId } = td;
  const key = state.keyIds.get(keyId)!;
  const { state: before, cachedPackages } = key;
  state.effects.push({ kind: 'key', change: 'freed', keyId, before, cachedPackages });
  key.state = 'FREE';
  td.lifeCycle = 'TEARDOWN';
};

/** @internal */
export const phymemPageReclaim: ApplyLeaf = (state, call) => {
  const address = pageIn(call, RCX);
  const page = state.pages.get(address);
  if (page === undefined) {
    unfounded(state, `the page ${hex(address)} is the host's already`);
    return;
  }
  answered(state, 'type of the page', page.type, call.out[RCX]!);
  answered(state, 'owner of the page', page.owner, call.out[RDX]!);
  answered(state, 'level of the page', page.level, call.out[R8]!);
  if (page.type !== PAGE_TYPE.TDR) {
    giveBack(state, address, state.tds.get(page.owner));
    return;
  }
  const td = state.tds.get(address);
  giveBack(state, address, td);
  if (td !== undefined) state.effects.push({ kind: 'ended', td });
  state.tds.delete(address);
};

/** Looks only at what is asked at 4 KiB; the owner of a free page is whoever had it last. @internal */
export const phymemPageRdmd: ApplyLeaf = (state, call) => {
  if ((call.in[RCX]! & LEVEL_MASK) !== 0n) return;
  const address = pageIn(call, RCX);
  const page = pageHolding(state, address)?.page;
  if (page === undefined) {
    // With dynamic PAMT, reserved pages answer as those that are lent for metadata.
    const types = state.platform.dynamicPamt ? FREE_TYPES_DYNAMIC : FREE_TYPES;
    const isFree = types.has(call.out[RCX]!);
    if (!isFree) answered(state, `type of page ${hex(address)}`, PAGE_TYPE.NDA, call.out[RCX]!);
    return;
  }
  answered(state, `type of page ${hex(address)}`, page.type, call.out[RCX]!);
  answered(state, `owner of page ${hex(address)}`, page.owner, call.out[RDX]!);
};

/** Fields of a TD that calls alone determine, by metadata id (facts: TDR and TDCS tables). */
const KNOWN_FIELDS: ReadonlyMap<bigint, (td: AbstractTd) => number | bigint> = new Map<
  bigint,
  (td: AbstractTd) => number | bigint
>([
  [0x8010_0002_0000_0002n, (td) => td.tdcs.length],
  [0x8010_0003_0000_0004n, (td) => td.children],
  [0x8110_0001_0000_0001n, (td) => td.keyId],
  [0x8110_0003_0000_0002n, (td) => td.configuredPackages],
  [0x9010_0002_0000_0001n, (td) => td.initialisedVcpus],
  [0x9010_0002_0000_0002n, (td) => [...td.vcpus.values()].filter(({ lp }) => lp !== null).length],
  [0x9010_0001_0000_0005n, (td) => td.l2Vms],
  [0x9210_0003_0000_0000n, (td) => td.epoch],
]);

/** What MNG.RD says of counters is what calls made of them. @internal */
export const mngRd: ApplyLeaf = (state, call) => {
  const td = tdIn(state, call, RCX);
  const expected = td === undefined ? undefined : KNOWN_FIELDS.get(call.in[RDX]!)?.(td);
  if (expected !== undefined) answered(state, `field ${hex(call.in[RDX]!)}`, expected, call.out[R8]!);
};
