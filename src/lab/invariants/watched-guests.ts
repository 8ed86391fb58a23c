/** A guest runner that tells a model checker what the guests do. */
import { RAX } from '../../abi/registers.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { deliverExit } from '../../module/guest/dispatcher.ts';
import type { GuestRunner } from '../../module/guest/guest-runner.ts';
import type { RunningVcpu } from '../../module/guest/running-vcpu.ts';
import type { GuestOutcome, VmExit } from '../../module/guest/vm-exit.ts';
import type { TdxModule } from '../../module/tdx-module.ts';
import type { ModelChecker } from './model-checker.ts';

const BASIC_REASON = 0xffff;

/** @public */
export class WatchedGuests implements GuestRunner {
  readonly #guests: GuestRunner;
  readonly #checker: ModelChecker;
  /** TDCALLs whose outcome is not known yet, by TDVPR: the registers they were made with. */
  readonly #tdcalls = new Map<number, BigUint64Array>();

  constructor(guests: GuestRunner, checker: ModelChecker) {
    this.#guests = guests;
    this.#checker = checker;
  }

  run(vcpu: RunningVcpu): VmExit {
    this.#checker.guestEntered(vcpu.lp);
    this.#finishTdcall(vcpu);
    const exit = this.#guests.run(vcpu);
    if ((exit.reason & BASIC_REASON) === EXIT.TDCALL) this.#tdcalls.set(vcpu.address, vcpu.regs.q.slice());
    return exit;
  }

  /** Runs one VM exit of the vCPU on `lp`, for a module without a runner. Throws Error when there is no vCPU. */
  step(lp: LogicalProcessor): GuestOutcome {
    const vcpu = (lp.machine.seam.module as TdxModule).running[lp.index];
    if (vcpu === undefined) throw new Error(`no vCPU is entered on LP ${lp.index}`);
    const outcome = deliverExit(vcpu, this.run(vcpu));
    this.#finishTdcall(vcpu);
    if (outcome === 'exited') this.#checker.guestLeft(lp);
    return outcome;
  }

  #finishTdcall({ lp, regs, address }: RunningVcpu): void {
    const before = this.#tdcalls.get(address);
    this.#tdcalls.delete(address);
    // A call that went to the host, or that faulted, has its number in RAX still.
    if (before !== undefined && before[RAX] !== regs.q[RAX]) {
      this.#checker.guestCalled(lp, before, regs.q);
    }
  }
}
