/** Plays a scenario under a policy from boot to the last event, with every invariant watched. */
import type { Reason } from '../../../abi/errno.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import { GivenPages } from '../invariants/given-pages.ts';
import type { Violation } from '../invariants/invariant.ts';
import { lentPages, SCENARIO_INVARIANTS } from '../invariants/invariants.ts';
import type { PolicySet, Scenario } from '../scenario.ts';
import { type PlannedEvent, timeline } from '../timeline.ts';
import { armFaults } from './faults.ts';
import { type Measures, Meter } from './measures.ts';
import type { Outcome } from './outcome.ts';
import { playEvent } from './play-event.ts';
import { ScenarioHost } from './scenario-host.ts';

/** @public */
export interface RunOptions {
  /** Instead of the scenario's. */
  readonly policy?: PolicySet;
  readonly seed?: number;
  /** Instead of the timeline of the scenario and seed. */
  readonly events?: readonly PlannedEvent[];
  /** Told after each event: its outcomes, its number from 0, how many there are. */
  readonly onEvent?: (outcomes: readonly Outcome[], number: number, total: number) => void;
  /** Events between two full audits; default 4096. */
  readonly auditEvery?: number;
  /** Changes the host after its boot: what tests break on purpose. */
  readonly prepare?: (host: ScenarioHost) => void;
}

/** A life that was played. Plain data. @public */
export interface ScenarioRun {
  readonly scenario: string;
  readonly policy: string;
  readonly seed: number;
  readonly outcomes: readonly Outcome[];
  readonly measures: Measures;
  readonly violations: readonly Violation[];
  /** At the end. */
  readonly tdx: HostKernel['state'];
  /** Why TDX did not come up; null where it did, or nobody tried. */
  readonly tdxOff: Reason | null;
}

const AUDIT_EVERY = 4096;
/** Events in which only TDs and the host's programs take and give pages. */
const LENDING: ReadonlySet<PlannedEvent['do']> = new Set([
  'td-start',
  'td-stop',
  'td-grow',
  'td-convert',
  'balloon',
  'host-alloc',
  'host-free',
  'fragment',
  'compact',
  'keyid-shortage',
]);

/** Plays `scenario`. Throws Error for a bug of ours only: whatever a host can do is an outcome. @public */
export async function runScenario(scenario: Scenario, options: RunOptions = {}): Promise<ScenarioRun> {
  const { policy = scenario.policy, seed = scenario.seed } = options;
  const events = options.events ?? timeline(scenario, seed);
  const host = new ScenarioHost(scenario, policy, seed);
  const life = new Life(host);
  await host.boot();
  const bootNs = host.host.machine.clock.nowNs;
  life.begin(seed);
  options.prepare?.(host);
  const outcomes: Outcome[] = [];
  const auditEvery = options.auditEvery ?? AUDIT_EVERY;
  for (const [number, event] of events.entries()) {
    const { clock } = host.host.machine;
    clock.advance(Math.max(0, bootNs + event.at - clock.nowNs));
    const isAudit = (number + 1) % auditEvery === 0 || number + 1 === events.length;
    const came = await life.play(event, number, isAudit);
    outcomes.push(...came);
    options.onEvent?.(came, number, events.length);
  }
  const { kernel } = host;
  return {
    scenario: scenario.name,
    policy: policy.name,
    seed,
    outcomes,
    measures: life.meter.measures(bootNs),
    violations: life.violations,
    tdx: kernel.state,
    tdxOff: kernel.stages.find(({ state }) => state === 'failed')?.reason ?? null,
  };
}

/** A host with those who look on. */
class Life {
  readonly host: ScenarioHost;
  readonly meter = new Meter();
  readonly violations: Violation[] = [];
  readonly #given: GivenPages;
  #kernelPages = 0;

  constructor(host: ScenarioHost) {
    this.host = host;
    this.#given = new GivenPages(() => host.kernel);
  }

  /** The kernel has booted. */
  begin(seed: number): void {
    const { host, scenario, kernel } = this.host;
    host.machine.seam.observer = this.#given;
    armFaults(scenario.faults, host.machine, kernel, seed);
    this.#kernelPages = this.#pagesOfKernel();
    this.meter.look(this.host);
  }

  async play(event: PlannedEvent, number: number, isAudit: boolean): Promise<readonly Outcome[]> {
    const { host } = this;
    const { kernel } = host;
    const { state } = kernel;
    const outcomes = await playEvent(host, event);
    // The kernel's own pages change with what it does for itself, and not with what it lends.
    const isOwn = !LENDING.has(event.do) || host.kernel !== kernel || kernel.state !== state;
    if (isOwn) this.#kernelPages = this.#pagesOfKernel();
    this.meter.note(host, event, outcomes);
    this.#check(outcomes, number, isAudit);
    return outcomes;
  }

  #check(outcomes: readonly Outcome[], event: number, isAudit: boolean): void {
    const look = { host: this.host, outcomes, given: this.#given, kernelPages: this.#kernelPages };
    for (const { name, when, check } of SCENARIO_INVARIANTS) {
      if (when === 'audit' && !isAudit) continue;
      if (when !== 'always' && this.host.down !== null) continue;
      const text = check(look);
      if (text !== null) this.violations.push({ invariant: name, text, event });
    }
  }

  #pagesOfKernel(): number {
    const { allocator } = this.host.kernel;
    return allocator.accounts().reduce((sum, { used }) => sum + used, 0) - lentPages(this.host);
  }
}
