/**
 * Watches a module through its SEAMCALLs and its guests' exits: carries the abstract state along; after every one of
 * them checks the invariants of the call and compares what it named; checks and compares everything as often as asked.
 */
import { RAX, RCX } from '../../abi/registers.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { SeamcallObserver } from '../../machine/seam.ts';
import type { TdxModule } from '../../module/tdx-module.ts';
import { type AbstractState, createAbstractState } from './abstract-state.ts';
import { applyCall, applyEntry, applyTdcall, applyTdExit } from './apply-call.ts';
import { CALL_INVARIANTS } from './call-invariants.ts';
import { compareState } from './compare.ts';
import { compareNamed } from './compare-named.ts';
import { type Difference, formatDifference } from './differences.ts';
import type { HostCall } from './host-call.ts';
import { ModuleView } from './module-view.ts';
import { STATE_INVARIANTS } from './state-invariants.ts';

const LEAF_MASK = 0xffffn;
const VERSION_SHIFT = 16n;
const VERSION_MASK = 0xffn;
const LOADER_BIT = 1n << 63n;
const VP_ENTER = 0;
/** What a breach of the comparison is called, beside the names of the invariants. */
const COMPARISON = 'moduleHasTheAbstractState';

/** One breach: the name of the invariant and a sentence. @public */
export interface Breach {
  readonly invariant: string;
  readonly what: string;
}

/** Thrown by a checker from inside the SEAMCALL that broke something. @public */
export class InvariantError extends Error {
  readonly breaches: readonly Breach[];

  constructor(breaches: readonly Breach[]) {
    super(breaches.map(({ invariant, what }) => `${invariant}: ${what}`).join('\n'));
    this.name = 'InvariantError';
    this.breaches = breaches;
  }
}

/** @public */
export interface ModelCheckerOptions {
  /** Check the whole state after every so many events. Default 1. */
  readonly checkStateEvery?: number;
}

/** @public */
export class ModelChecker implements SeamcallObserver {
  readonly state: AbstractState;
  readonly #module: TdxModule;
  readonly #every: number;
  /** Registers before the SEAMCALL that each LP is in. */
  readonly #before: (BigUint64Array | undefined)[] = [];

  /** Begins with a module that is ready and has no TDs; throws Error for another one. */
  constructor(module: TdxModule, options: ModelCheckerOptions = {}) {
    this.#module = module;
    this.#every = options.checkStateEvery ?? 1;
    this.state = createAbstractState(platformOf(module));
    this.checkState();
  }

  before(lp: LogicalProcessor): void {
    this.#before[lp.index] = lp.regs.q.slice();
  }

  after(lp: LogicalProcessor, entered: boolean): void {
    const before = this.#before[lp.index]!;
    this.#before[lp.index] = undefined;
    if (!entered || (before[RAX]! & LOADER_BIT) !== 0n) return;
    applyCall(this.state, this.#hostCall(lp, before));
    this.#check(before);
  }

  /** The guest on `lp` takes its first step since VP.ENTER, which has not returned. */
  guestEntered(lp: LogicalProcessor): void {
    const before = this.#before[lp.index];
    if (before === undefined || this.state.running.has(lp.index)) return;
    applyEntry(this.state, lp.index, Number(before[RCX]! & 0xf_ffff_ffff_f000n));
    this.#check();
  }

  /** The guest on `lp` went on after a TDCALL; its registers before and after. */
  guestCalled(lp: LogicalProcessor, before: BigUint64Array, after: BigUint64Array): void {
    applyTdcall(this.state, lp.index, before, after);
    this.#check();
  }

  /** The guest on `lp` left for the host, whose VP.ENTER had returned before. */
  guestLeft(lp: LogicalProcessor): void {
    applyTdExit(this.state, lp.index, lp.regs.q[RAX]!);
    this.#check();
  }

  /** Checks everything. Throws InvariantError. */
  checkState(): void {
    throwBreaches(this.#stateBreaches());
  }

  /** What follows every event; `named` are the registers of a SEAMCALL. */
  #check(named?: BigUint64Array): void {
    const breaches: Breach[] = [];
    if (this.state.effects.length > 0) {
      for (const invariant of CALL_INVARIANTS) {
        for (const what of invariant(this.state)) breaches.push({ invariant: invariant.name, what });
      }
    }
    if (named !== undefined) breaches.push(...compareNamed(this.state, this.#module, named).map(asBreach));
    if (this.state.time % this.#every === 0) breaches.push(...this.#stateBreaches());
    throwBreaches(breaches);
  }

  #stateBreaches(): Breach[] {
    const breaches: Breach[] = [];
    const view = new ModuleView(this.#module);
    for (const invariant of STATE_INVARIANTS) {
      for (const what of invariant(this.state, view)) breaches.push({ invariant: invariant.name, what });
    }
    breaches.push(...compareState(this.state, view).map(asBreach));
    return breaches;
  }

  #hostCall(lp: LogicalProcessor, before: BigUint64Array): HostCall {
    const rax = before[RAX]!;
    const after = lp.regs.q;
    const leaf = Number(rax & LEAF_MASK);
    return {
      lp: lp.index,
      leaf,
      version: Number((rax >> VERSION_SHIFT) & VERSION_MASK),
      in: before,
      out: after,
      status: after[RAX]!,
      // A TD exit always leaves something else in RCX than the TDVPR's address.
      staysInTd: leaf === VP_ENTER && after[RAX] === 0n && after[RCX] === before[RCX],
      hostMemory: (address, length) => lp.load(address, length),
    };
  }
}

function throwBreaches(breaches: readonly Breach[]): void {
  if (breaches.length > 0) throw new InvariantError(breaches);
}

function asBreach(difference: Difference): Breach {
  return { invariant: COMPARISON, what: formatDifference(difference) };
}

function platformOf(module: TdxModule): Parameters<typeof createAbstractState>[0] {
  const { platform, machine } = module;
  if (module.sysState !== 'SYS_READY' || platform === null) throw new Error('the module is not ready');
  return {
    keyIdStartBit: platform.hkidStartBit,
    globalKeyId: module.globalKeyId,
    privateKeyIds: { first: platform.privateHkidMin, last: platform.privateHkidMax },
    packages: machine.lps.map((lp) => module.packageOf(lp)),
    lpIds: machine.lps.map((lp) => lp.apicId),
    configuredPackages: module.configuredPackages,
    dynamicPamt: module.pamt.dynamic,
  };
}
