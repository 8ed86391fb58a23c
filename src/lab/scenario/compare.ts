/** The same events under every policy. */
import { type RunOptions, runScenario, type ScenarioRun } from './engine/run-scenario.ts';
import { type Judgement, judge } from './expectations.ts';
import type { PolicySet, Scenario } from './scenario.ts';
import { timeline } from './timeline.ts';

/** What the events come to under one policy. @public */
export interface ComparisonRow extends Omit<ScenarioRun, 'outcomes'> {
  readonly title: string;
  readonly verdicts: readonly Judgement[];
}

/** @public */
export interface PolicyComparison {
  readonly scenario: string;
  readonly title: string;
  readonly argument: string;
  readonly seed: number;
  readonly events: number;
  readonly rows: readonly ComparisonRow[];
}

/** @public */
export interface CompareOptions extends Pick<RunOptions, 'seed'> {
  /** Instead of the scenario's. */
  readonly policies?: readonly PolicySet[];
  /** Told before each policy. */
  readonly onPolicy?: (policy: PolicySet, number: number, total: number) => void;
}

/** Plays the events of a scenario's seed under every policy. @public */
export async function compareScenario(
  scenario: Scenario,
  options: CompareOptions = {},
): Promise<PolicyComparison> {
  const { seed = scenario.seed, policies = scenario.policies } = options;
  const events = timeline(scenario, seed);
  const rows: ComparisonRow[] = [];
  for (const [number, policy] of policies.entries()) {
    options.onPolicy?.(policy, number, policies.length);
    const run = await runScenario(scenario, { policy, seed, events });
    const { outcomes: _, ...figures } = run;
    rows.push({ ...figures, title: policy.title, verdicts: judge(scenario, run) });
  }
  const { name, title, argument } = scenario;
  return { scenario: name, title, argument, seed, events: events.length, rows };
}
