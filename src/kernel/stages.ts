/** The stages of initialisation, each with its state and the reason of its failure. */
import { type ErrnoName, KernelError, type Reason } from '../abi/errno.ts';

/** In the order they run (Linux host rules 1.1 to 1.3). @public */
export const STAGES = [
  { name: 'detect', title: 'private KeyIDs found, no conflict' },
  { name: 'platform', title: 'CPU features the module needs' },
  { name: 'cpus', title: 'VMX operation, TDH.SYS.INIT, TDH.SYS.LP.INIT on every CPU' },
  { name: 'sysinfo', title: 'module information read' },
  { name: 'features', title: 'mandatory features present' },
  { name: 'memlist', title: 'TDX memory list built' },
  { name: 'tdmr-list', title: 'memory for the TDMR_INFO array' },
  { name: 'tdmrs', title: 'TDMRs cover the TDX memory' },
  { name: 'pamts', title: 'memory for the PAMTs' },
  { name: 'reserved-areas', title: 'reserved areas of the TDMRs' },
  { name: 'config', title: 'TDH.SYS.CONFIG' },
  { name: 'key-config', title: 'global KeyID configured on every package' },
  { name: 'tdmr-init', title: 'PAMTs of all TDMRs initialised' },
] as const;

/** @public */
export type StageName = (typeof STAGES)[number]['name'];

/** `skipped`: an earlier stage failed, or TDX is not to be enabled. @public */
export type StageState = 'pending' | 'done' | 'failed' | 'skipped';

/** @public */
export interface Stage {
  readonly name: StageName;
  readonly title: string;
  readonly state: StageState;
  /** Of a failure. */
  readonly errno?: ErrnoName;
  readonly reason?: Reason;
}

/** @public */
export class StageList {
  #stages: readonly Stage[] = STAGES.map((stage) => ({ ...stage, state: 'pending' }));

  get list(): readonly Stage[] {
    return this.#stages;
  }

  /** The stage that failed, if one did. */
  get failed(): Stage | undefined {
    return this.#stages.find((stage) => stage.state === 'failed');
  }

  /**
   * Runs one stage and records how it went. A KernelError gets the stage's name into its data; the stages after
   * a failed one are skipped.
   */
  async run<T>(name: StageName, work: () => T | Promise<T>): Promise<T> {
    try {
      const result = await work();
      this.#set(name, { state: 'done' });
      return result;
    } catch (error) {
      if (!(error instanceof KernelError)) {
        // Not a refusal but the end, such as a machine check: recorded for whoever looks at the wreck.
        this.#set(name, {
          state: 'failed',
          reason: { code: 'crash', text: String(error), data: { stage: name } },
        });
        this.#skipPending();
        throw error;
      }
      const { code, text, data } = error.reason;
      const named = new KernelError(error.errno, code, text, { ...data, stage: name });
      this.#set(name, { state: 'failed', errno: named.errno, reason: named.reason });
      this.#skipPending();
      throw named;
    }
  }

  /** State for a saved machine. */
  save() {
    return this.#stages;
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<StageList['save']>): void {
    this.#stages = saved;
  }

  /** Marks every stage that did not run as skipped. */
  #skipPending(): void {
    this.#stages = this.#stages.map((stage) =>
      stage.state === 'pending' ? { ...stage, state: 'skipped' } : stage,
    );
  }

  #set(name: StageName, outcome: Partial<Stage>): void {
    this.#stages = this.#stages.map((stage) => (stage.name === name ? { ...stage, ...outcome } : stage));
  }
}
