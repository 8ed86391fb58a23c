/** Invariants of single calls: cheap enough to be checked after every one. */
import { hex } from '../../abi/address.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { type AbstractState, mayHaveCached, vcpuAt } from './abstract-state.ts';
import type { Effect } from './effects.ts';
import type { CallInvariant } from './invariant.ts';

function* effectsOf<K extends Effect['kind']>(
  { effects }: AbstractState,
  kind: K,
): Generator<Extract<Effect, { readonly kind: K }>> {
  for (const effect of effects) {
    if (effect.kind === kind) yield effect as Extract<Effect, { readonly kind: K }>;
  }
}

/** A page has one owner: what the host gives, nobody has. @public */
export const pageHasOneOwner: CallInvariant = function* (state) {
  for (const { address, page, previous } of effectsOf(state, 'given')) {
    if (previous !== undefined) {
      yield `page ${hex(address)} was given to ${hex(page.owner)} and belonged to ${hex(previous.owner)}`;
    }
  }
};

/** A page goes back to the host only when no vCPU can reach it by a translation it cached. @public */
export const noPageReturnsWhileATlbReachesIt: CallInvariant = function* (state) {
  for (const { address, td, reach } of effectsOf(state, 'returned')) {
    for (const vcpu of td?.vcpus.values() ?? []) {
      if (!mayHaveCached(vcpu, reach)) continue;
      // A vCPU that is out flushes on its way in, because the TD's epoch is another by now.
      const flushesFirst = !vcpu.entered && vcpu.epoch !== td!.epoch && td!.lifeCycle === 'KEYS_CONFIGURED';
      if (!flushesFirst) {
        yield `page ${hex(address)} went back while vCPU ${hex(vcpu.tdvpr)} may have its translation`;
      }
    }
  }
};

/** A KeyID is not freed, and never used again, before every package wrote back the lines it has under it. @public */
export const keyIdIsReusedOnlyAfterWriteBack: CallInvariant = function* (state) {
  for (const { change, keyId, before, cachedPackages } of effectsOf(state, 'key')) {
    if (cachedPackages !== 0) {
      yield `KeyID ${keyId} was ${change} with lines in the caches of packages 0b${cachedPackages.toString(2)}`;
    }
    const from = change === 'assigned' ? 'FREE' : 'FLUSHED';
    if (before !== from) yield `KeyID ${keyId} was ${change} while ${before}`;
  }
};

/** A vCPU runs on one LP, and an LP runs one vCPU. @public */
export const vcpuRunsOnOneLp: CallInvariant = function* (state) {
  for (const { tdvpr, lp, holder, wasEntered, running } of effectsOf(state, 'entered')) {
    if (wasEntered) yield `vCPU ${hex(tdvpr)} was entered on LP ${lp} while it ran`;
    if (holder !== null && holder !== lp)
      yield `vCPU ${hex(tdvpr)} was entered on LP ${lp}; LP ${holder} has it`;
    if (running !== undefined) yield `LP ${lp} runs vCPU ${hex(running)} and entered ${hex(tdvpr)}`;
  }
};

/** A TD ends only when it has no vCPU on any LP and has given every page back. @public */
export const tdEndsWithoutPages: CallInvariant = function* (state) {
  for (const { td } of effectsOf(state, 'ended')) {
    if (td.children !== 0) yield `TD ${hex(td.tdr)} ended with ${td.children} pages`;
    if (td.lifeCycle !== 'TEARDOWN') yield `TD ${hex(td.tdr)} ended in life cycle ${td.lifeCycle}`;
    for (const [address, page] of state.pages) {
      if (page.owner === td.tdr && page.type !== PAGE_TYPE.TDR) {
        yield `TD ${hex(td.tdr)} ended and owns page ${hex(address)}`;
      }
    }
  }
};

/** When the key of a TD is blocked, none of its vCPUs is associated with an LP, and none gets there later. @public */
export const blockedTdIsOnNoLp: CallInvariant = function* (state) {
  for (const { td } of effectsOf(state, 'blocked')) {
    for (const { lp, tdvpr } of td.vcpus.values()) {
      if (lp !== null) yield `TD ${hex(td.tdr)} was blocked while LP ${lp} has its vCPU ${hex(tdvpr)}`;
    }
  }
  for (const { tdvpr, lp } of effectsOf(state, 'entered')) {
    const td = vcpuAt(state, tdvpr)?.td;
    if (td?.lifeCycle !== 'KEYS_CONFIGURED') yield `LP ${lp} entered a vCPU of a TD that is ${td?.lifeCycle}`;
  }
};

/** What the module says of pages and entries is what calls made of them. @public */
export const answersTellTheState: CallInvariant = function* (state) {
  for (const { what, expected, found } of effectsOf(state, 'answered')) {
    if (BigInt(expected) !== BigInt(found))
      yield `${what}: the module says ${hex(found)}, not ${hex(expected)}`;
  }
};

/** A call succeeds only on what earlier calls made. @public */
export const successIsFounded: CallInvariant = function* (state) {
  for (const { what } of effectsOf(state, 'unfounded')) yield what;
};

/** @public */
export const CALL_INVARIANTS: readonly CallInvariant[] = [
  pageHasOneOwner,
  noPageReturnsWhileATlbReachesIt,
  keyIdIsReusedOnlyAfterWriteBack,
  vcpuRunsOnOneLp,
  tdEndsWithoutPages,
  blockedTdIsOnNoLp,
  answersTellTheState,
  successIsFounded,
];
