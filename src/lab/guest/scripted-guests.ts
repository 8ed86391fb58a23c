/** Runs scripts as guests of a TDX module and, without one, of the machine: one script runs under every technology. */
import type { GuestCode, GuestContext, GuestExit } from '../../machine/guest-code.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { deliverExit } from '../../module/guest/dispatcher.ts';
import type { GuestRunner } from '../../module/guest/guest-runner.ts';
import type { RunningVcpu } from '../../module/guest/running-vcpu.ts';
import type { GuestOutcome, VmExit } from '../../module/guest/vm-exit.ts';
import type { TdxModule } from '../../module/tdx-module.ts';
import { CONTEXT_PROCESSOR } from './context-processor.ts';
import type { GuestScript } from './flow.ts';
import { ScriptPlayer } from './script-player.ts';
import { TD_PROCESSOR } from './td-processor.ts';

/** @public */
export class ScriptedGuests implements GuestRunner {
  /** Actions of a guest after which an interrupt of the host arrives; a guest alone on its processor needs none. */
  budget = Number.POSITIVE_INFINITY;
  readonly #scripts = new Map<number, GuestScript>();
  readonly #scriptOf = ({ address }: { readonly address: number }): GuestScript | undefined =>
    this.#scripts.get(address);
  readonly #tds = new ScriptPlayer(TD_PROCESSOR, this.#scriptOf);
  readonly #contexts = new ScriptPlayer(CONTEXT_PROCESSOR, this.#scriptOf);
  /** For the machine's slot. */
  readonly code: GuestCode = {
    run: (context: GuestContext): GuestExit => this.#contexts.run(context, this.budget),
  };

  /** Gives the vCPU at `address` (TDVPR, VMCS, VMSA) its script. */
  set(address: number, script: GuestScript): void {
    this.#scripts.set(address, script);
    this.#tds.forget(address);
    this.#contexts.forget(address);
  }

  /** True once the script of this vCPU has returned. */
  isDone(address: number): boolean {
    return this.#tds.isDone(address) || this.#contexts.isDone(address);
  }

  /** Runs the vCPU of a TD to its next VM exit. A script that has returned asks the host for HLT, again and again. */
  run(vcpu: RunningVcpu): VmExit {
    return this.#tds.run(vcpu, this.budget);
  }

  /** Runs one VM exit of the vCPU entered on `lp`, for a host that lets LPs take turns. */
  step(lp: LogicalProcessor): GuestOutcome {
    const vcpu = (lp.machine.seam.module as TdxModule).running[lp.index];
    if (vcpu === undefined) throw new Error(`no vCPU is entered on LP ${lp.index}`);
    return deliverExit(vcpu, this.run(vcpu));
  }
}
