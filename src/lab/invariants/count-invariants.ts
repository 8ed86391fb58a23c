/** Invariants of the module's counters, keys and locks. */
import { hex, PAGE_1G, PAGE_2M } from '../../abi/address.ts';
import { LEVEL_1G, LEVEL_4K } from '../../abi/page-types.ts';
import { HKID_STATE } from '../../module/kot.ts';
import { HP_EXCLUSIVE, HP_READER } from '../../module/locks.ts';
import { LIFECYCLE, NO_LP, TDCS, TDR, TDVPS } from '../../module/td/layout.ts';
import type { AbstractState } from './abstract-state.ts';
import type { StateInvariant } from './invariant.ts';
import type { ModuleView } from './module-view.ts';

/** A TD's CHLDCNT is the number of 4 KiB pages that the metadata name it the owner of. @public */
export const childCountsBalance: StateInvariant = function* (_state, view) {
  for (const [tdr, { td }] of view.tds) {
    const count = td.tdr.n64(TDR.CHLDCNT);
    const pages = view.owned.get(tdr)?.children ?? 0;
    if (count !== pages) yield `TD ${hex(tdr)} counts ${count} child pages and owns ${pages}`;
  }
  for (const { owner, children } of view.owned.values()) {
    if (!view.tds.has(owner)) yield `${children} pages belong to ${hex(owner)}, which is no TD`;
  }
};

/** A TD counts under each epoch's parity the vCPUs that were entered in it and are still in. @public */
export const epochCountsEqualEnteredVcpus: StateInvariant = function* ({ tds }, view) {
  for (const [tdr, { td, tdcs, septs }] of view.tds) {
    const known = tds.get(tdr);
    // A TD that ended by force keeps its counts.
    if (tdcs === null || septs.length === 0 || known === undefined || known.fatal) continue;
    for (const parity of [0, 1]) {
      const inside = [...known.vcpus.values()].filter(
        ({ entered, tdvpr }) => entered && Number(td.tdvpr(tdvpr).u64(TDVPS.VCPU_EPOCH) & 1n) === parity,
      ).length;
      const count = tdcs.u16(TDCS.REFCOUNT + 2 * parity);
      if (count !== inside)
        yield `TD ${hex(tdr)} counts ${count} vCPUs in epochs of parity ${parity}, ${inside} are in`;
    }
  }
};

/** NUM_ASSOC_VCPUS is the number of vCPUs that an LP has, and a vCPU that runs is its LP's. @public */
export const associationsAreCounted: StateInvariant = function* ({ tds, platform }, view) {
  for (const [tdr, { td, tdcs, septs }] of view.tds) {
    if (tdcs === null || septs.length === 0) continue;
    let associated = 0;
    for (const { tdvpr, entered, lp } of tds.get(tdr)?.vcpus.values() ?? []) {
      const holder = td.tdvpr(tdvpr).u32(TDVPS.ASSOC_LPID);
      if (holder !== NO_LP) associated++;
      if (entered && holder !== platform.lpIds[lp!])
        yield `vCPU ${hex(tdvpr)} runs on LP ${lp}, ${holder} has it`;
    }
    const count = tdcs.u32(TDCS.NUM_ASSOC_VCPUS);
    if (count !== associated) yield `TD ${hex(tdr)} counts ${count} associated vCPUs, ${associated} are`;
  }
};

/** Every KeyID that is not free belongs to one TD that has not torn it down, or to the module. @public */
export const keyIdBelongsToOneTd: StateInvariant = function* ({ platform }, view) {
  const users = new Map<number, number>([[platform.globalKeyId, 0]]);
  const { kot } = view.module;
  for (const [tdr, { td, lifeCycle }] of view.tds) {
    if (lifeCycle === LIFECYCLE.TEARDOWN) continue;
    const user = users.get(td.keyId);
    if (user !== undefined) yield `KeyID ${td.keyId} is used by ${hex(user)} and ${hex(tdr)}`;
    users.set(td.keyId, tdr);
    const state = lifeCycle === LIFECYCLE.BLOCKED ? HKID_STATE.FLUSHED : HKID_STATE.ASSIGNED;
    if (kot.states[td.keyId] !== state)
      yield `KeyID ${td.keyId} of TD ${hex(tdr)} is in state ${kot.states[td.keyId]}`;
  }
  for (let keyId = platform.privateKeyIds.first; keyId <= platform.privateKeyIds.last; keyId++) {
    if (kot.states[keyId] !== HKID_STATE.FREE && !users.has(keyId))
      yield `KeyID ${keyId} is not free and nobody's`;
  }
};

/** Between calls every lock is free but those by which a vCPU that runs keeps its TDVPR and its TDR. @public */
export const locksAreFreeBetweenCalls: StateInvariant = function* (state, view) {
  const { module } = view;
  if (module.globalLock.word !== 0) yield 'the global lock is held';
  if (module.kot.lock.word !== 0) yield 'the lock of the KOT is held';
  for (const [i, { lock }] of module.writeBack.entries())
    if (lock.word !== 0) yield `write-back lock ${i} is held`;
  for (const { lock, base } of module.pamt.tdmrs) if (lock.word !== 0) yield `TDMR ${hex(base)} is locked`;
  yield* pageLocks(state, view);
  for (const [tdr, { tdcs, septs }] of view.tds) {
    for (const { vm, locked } of septs) {
      for (const key of locked) yield `TD ${hex(tdr)} VM ${vm} GPA ${hex(key)} is locked`;
    }
    if (tdcs === null) continue;
    for (const name of ['OP_STATE_LOCK', 'SEPT_TREE_LOCK', 'RTMR_LOCK'] as const) {
      if (isHeld(tdcs.u16(TDCS[name]))) yield `TD ${hex(tdr)}: ${name} is held`;
    }
    if (tdcs.u16(TDCS.EPOCH_LOCK) !== 0) yield `TD ${hex(tdr)}: EPOCH_LOCK is held`;
  }
};

/** A host's claim alone holds nothing. */
function isHeld(word: number): boolean {
  return (word & HP_EXCLUSIVE) !== 0 || word >= HP_READER;
}

function* pageLocks({ running, pages }: AbstractState, view: ModuleView): Generator<string> {
  // A running vCPU holds its TDVPR, with the entries above it, and its TDR.
  const readers = new Map<number, number>();
  const add = (key: number): unknown => readers.set(key, (readers.get(key) ?? 0) + 1);
  for (const tdvpr of running.values()) {
    add(tdvpr);
    add(tdvpr - (tdvpr % PAGE_2M) + 1);
    add(tdvpr - (tdvpr % PAGE_1G) + LEVEL_1G);
    add(pages.get(tdvpr)!.owner + LEVEL_4K);
  }
  for (const { address, level, word } of view.locks) {
    const expected = readers.get(address + level) ?? 0;
    readers.delete(address + level);
    const held = Math.floor(word / HP_READER);
    if (held !== expected || (word & HP_EXCLUSIVE) !== 0) {
      yield `metadata of ${hex(address)} at level ${level} have lock word ${word}, ${expected} readers are known`;
    }
  }
  for (const [key, count] of readers)
    yield `metadata of ${hex(key)} lack the locks of ${count} running vCPUs`;
}

/** What the module keeps of a TD between calls, to find its structures faster, is what the structures say. @public */
export const rememberedTdsAreCurrent: StateInvariant = function* (_state, view) {
  for (const remembered of view.module.trustDomains.values()) {
    const tdr = remembered.address;
    const real = view.tds.get(tdr);
    if (real === undefined || real.tdcs === null) continue;
    if (remembered.keyId !== real.td.keyId || remembered.tdcs.pageCount !== real.tdcs.pageCount) {
      yield `what is remembered of TD ${hex(tdr)} is out of date`;
    }
  }
};
