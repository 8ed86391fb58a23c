/** The leaves that each operation state of a TD allows (facts: operation state tables, release 1.5.25). */
import { TDG, TDH } from '../../abi/leaves.ts';
import { OP_STATE, OP_STATES, type OpStateName } from '../../abi/op-states.ts';

function setOf(...names: readonly OpStateName[]): number {
  return names.reduce((set, name) => set | (1 << OP_STATE[name]), 0);
}

/** Sets of operation states, one bit each, by leaf number. @public */
export type StatesByLeaf = Uint32Array;

/** Leaf numbers are below this. */
const LEAVES = 256;

/** A table indexed by leaf number; no states for a leaf that has no row. */
function byLeaf(rows: readonly (readonly [leaf: number, states: number])[]): StatesByLeaf {
  const table = new Uint32Array(LEAVES);
  for (const [leaf, states] of rows) table[leaf] = states;
  return table;
}

const BUILT = setOf('INITIALIZED', 'RUNNABLE', 'LIVE_EXPORT');
const EXPORT_STOPPED = setOf('PAUSED_EXPORT', 'POST_EXPORT');
const IMPORT_IN_ORDER = setOf('MEMORY_IMPORT', 'STATE_IMPORT');
const IMPORT_OUT_OF_ORDER = setOf('POST_IMPORT', 'LIVE_IMPORT');
const WRITABLE = BUILT | IMPORT_IN_ORDER | IMPORT_OUT_OF_ORDER | setOf('FAILED_IMPORT');
const READABLE = WRITABLE | EXPORT_STOPPED;
const MANAGEABLE = BUILT | EXPORT_STOPPED | IMPORT_OUT_OF_ORDER;
const INITIALIZED = setOf('INITIALIZED');
const VCPU_ADDABLE = setOf('INITIALIZED', 'STATE_IMPORT');
const ANY = setOf(...OP_STATES);

/** States of a TD in which each host leaf may be called on it. A leaf that is not here has no such check. @public */
export const ALLOWED_BY_HOST_LEAF = byLeaf([
  [TDH.vpEnter, setOf('RUNNABLE', 'LIVE_EXPORT', 'LIVE_IMPORT')],
  [TDH.mngAddcx, setOf('UNINITIALIZED')],
  [TDH.memPageAdd, INITIALIZED],
  [TDH.memSeptAdd, BUILT | IMPORT_IN_ORDER | IMPORT_OUT_OF_ORDER],
  [TDH.vpAddcx, VCPU_ADDABLE],
  [TDH.memPageRelocate, MANAGEABLE],
  [TDH.memPageAug, BUILT | setOf('LIVE_IMPORT')],
  [TDH.memRangeBlock, MANAGEABLE],
  [TDH.vpCreate, VCPU_ADDABLE],
  [TDH.mngRd, READABLE],
  [TDH.memRd, READABLE],
  [TDH.mngWr, WRITABLE],
  [TDH.memWr, WRITABLE],
  [TDH.memPageDemote, MANAGEABLE],
  [TDH.mrExtend, INITIALIZED],
  [TDH.mrFinalize, INITIALIZED],
  [TDH.vpFlush, ANY],
  [TDH.mngInit, setOf('UNINITIALIZED')],
  [TDH.vpInit, INITIALIZED],
  [TDH.memPagePromote, MANAGEABLE],
  [TDH.memSeptRd, READABLE],
  [TDH.vpRd, READABLE],
  [TDH.memPageRemove, MANAGEABLE | setOf('FAILED_IMPORT')],
  [TDH.memSeptRemove, READABLE],
  [TDH.memTrack, MANAGEABLE | IMPORT_IN_ORDER],
  [TDH.memRangeUnblock, MANAGEABLE],
  [TDH.vpWr, WRITABLE],
  [TDH.servtdBind, setOf('UNINITIALIZED') | BUILT | IMPORT_OUT_OF_ORDER],
  [TDH.servtdPrebind, setOf('UNINITIALIZED', 'INITIALIZED')],
]);

/** The same for guest leaves that work on another TD. @public */
export const ALLOWED_BY_GUEST_LEAF = byLeaf([
  [TDG.servtdRd, ANY],
  [TDG.servtdWr, ANY & ~EXPORT_STOPPED],
]);

/** The same for host leaves on a second TD: the service TD that is bound. @public */
export const ALLOWED_ON_OTHER_TD = byLeaf([
  [TDH.servtdBind, (BUILT & ~INITIALIZED) | EXPORT_STOPPED | IMPORT_OUT_OF_ORDER],
]);

const TLB_TRACKED = setOf('RUNNABLE', 'LIVE_EXPORT', 'LIVE_IMPORT');
const IMPORTING = IMPORT_IN_ORDER | IMPORT_OUT_OF_ORDER;
const UNCONFIGURED = setOf('UNINITIALIZED', 'START_IMPORT');

/** True when `allowed` has `state` for `leaf`. @public */
export function isOpStateIn(allowed: StatesByLeaf, leaf: number, state: number): boolean {
  return ((allowed[leaf]! >>> state) & 1) === 1;
}

/** True when pages must be blocked and tracked before they are taken from a TD in `state`. @public */
export function isTlbTrackingRequired(state: number): boolean {
  return ((TLB_TRACKED >>> state) & 1) === 1;
}

/** True while a TD in `state` is being imported: pages it loses are REMOVED rather than FREE. @public */
export function isImportInProgress(state: number): boolean {
  return ((IMPORTING >>> state) & 1) === 1;
}

/** True once a TD in `state` has its configuration, be it from MNG.INIT or by import. @public */
export function isInitialised(state: number): boolean {
  return ((UNCONFIGURED >>> state) & 1) === 0;
}
