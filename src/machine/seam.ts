/** The SEAM range: the slots for the TDX module and P-SEAMLDR, and what the loader hands to the module. */
import { RAX } from '../abi/registers.ts';
import type { LogicalProcessor } from './lp.ts';
import type { SeamReports } from './seam-reports.ts';

/** Software that runs in SEAM mode: it takes its operands from `lp.regs` and leaves its results there. @public */
export interface SeamImage {
  /** Release, such as "1.5.25". */
  readonly version: string;
  seamcall(lp: LogicalProcessor): void;
}

/** Hand-off versions and size, as the loader tells them to the module. @public */
export interface HandoffInfo {
  moduleHv: number;
  minUpdateHv: number;
  noDowngrade: boolean;
  pages: number;
}

/** What MCHECK measured at power-on and leaves for the module; later hot-plug does not change it. @public */
export interface McheckInfo {
  /** Logical processors. */
  lps: number;
  /** CPUID(1).EAX of every package. */
  packageFms: readonly number[];
  /** TDX keeps a MAC with every line (cryptographic integrity), not only the owner bit. */
  integrity: boolean;
  /** The second pair of SMM range registers counts, where MTRRCAP announces it. */
  smrr2: boolean;
}

/** Looks at every SEAMCALL: once before it executes and once after. @public */
export interface SeamcallObserver {
  before(lp: LogicalProcessor): void;
  after(lp: LogicalProcessor, entered: boolean): void;
}

/** Capability bits of SEAMOPS on a machine that has all of them. */
const ALL_SEAMOPS = 0x7f;

/** @public */
export class Seam {
  /** SEAMRR valid on every package. */
  readonly enabled: boolean;
  readonly reports: SeamReports;
  module: SeamImage | null = null;
  loader: SeamImage | null = null;
  /** P-SEAMLDR is executing on another LP: it answers one LP at a time. */
  loaderBusy = false;
  /** SEAMOPS leaves the CPU supports, one bit each. */
  seamopsCapabilities = ALL_SEAMOPS;
  handoff: HandoffInfo = { moduleHv: 1, minUpdateHv: 0, noDowngrade: true, pages: 14 };
  mcheck: McheckInfo;
  /** Contents of the hand-off data region, which survives the replacement of the module. */
  handoffData = new Uint8Array(0);
  /** Number of SEAMCALLs that reached software in SEAM mode. */
  calls = 0;
  observer: SeamcallObserver | null = null;
  /** Fault point: a status returned instead of executing the call, or undefined to execute it. */
  fault: ((lp: LogicalProcessor, callIndex: number) => bigint | undefined) | null = null;

  constructor(enabled: boolean, mcheck: McheckInfo, reports: SeamReports) {
    this.enabled = enabled;
    this.reports = reports;
    this.mcheck = mcheck;
  }

  /** State for a saved machine; the software in the range is saved by those who know it. */
  save() {
    return {
      seamopsCapabilities: this.seamopsCapabilities,
      handoff: this.handoff,
      mcheck: this.mcheck,
      handoffData: this.handoffData,
      calls: this.calls,
      reports: this.reports.save(),
    };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<Seam['save']>): void {
    this.seamopsCapabilities = saved.seamopsCapabilities;
    this.handoff = saved.handoff;
    this.mcheck = saved.mcheck;
    this.handoffData = saved.handoffData;
    this.calls = saved.calls;
    this.reports.restore(saved.reports);
  }

  /** Enters the software that RAX bit 63 selects; false for VMFailInvalid. */
  enter(lp: LogicalProcessor): boolean {
    this.observer?.before(lp);
    const entered = this.#execute(lp);
    this.observer?.after(lp, entered);
    return entered;
  }

  #execute(lp: LogicalProcessor): boolean {
    const toLoader = lp.regs.d[2 * RAX + 1]! >= 0x8000_0000;
    const image = toLoader ? this.loader : this.module;
    if (image === null || this.loaderBusy) return false;
    const index = this.calls++;
    const forced = this.fault?.(lp, index);
    if (forced === undefined) image.seamcall(lp);
    else lp.regs.q[RAX] = forced;
    return true;
  }
}
