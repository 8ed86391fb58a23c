/** What is wrong with a life that was played: the first thing, told so that two lives can be compared by it. */
import { type RunOptions, runScenario, type ScenarioRun } from '../../scenario/engine/run-scenario.ts';
import { judge } from '../../scenario/expectations.ts';
import type { Scenario } from '../../scenario/scenario.ts';
import type { PlannedEvent } from '../../scenario/timeline.ts';

/** Plain data. @public */
export interface Failure {
  readonly kind: 'invariant' | 'expectation' | 'error';
  /** Name of the invariant, or what was expected; the same for failures of the same kind. */
  readonly name: string;
  readonly text: string;
  /** Line of the expectation in the scenario; null for others. */
  readonly line: number | null;
  /** Number of the event after which an invariant was broken; null for others. */
  readonly event: number | null;
}

/** Plays a scenario with a seed, or `events` instead of those of the seed. Null when all is well. @public */
export async function findFailure(
  scenario: Scenario,
  seed: number,
  options: Omit<RunOptions, 'seed'> = {},
): Promise<Failure | null> {
  const seeded = { ...scenario, seed };
  let run: ScenarioRun;
  try {
    run = await runScenario(seeded, { ...options, seed });
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { kind: 'error', name: error.name, text: error.message, line: null, event: null };
  }
  const [violation] = run.violations;
  if (violation !== undefined) {
    const { invariant: name, text, event } = violation;
    return { kind: 'invariant', name, text, line: null, event };
  }
  const verdict = judge(seeded, run).find(({ holds }) => !holds);
  if (verdict === undefined) return null;
  const { expected: name, found, line } = verdict;
  return { kind: 'expectation', name, text: found ?? '', line, event: null };
}

/** Plays seeds in order until one fails. @public */
export async function firstFailure(
  scenario: Scenario,
  { firstSeed, seeds }: { readonly firstSeed: number; readonly seeds: number },
  options: Omit<RunOptions, 'seed' | 'events'> = {},
): Promise<{ readonly seed: number; readonly failure: Failure } | null> {
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    const failure = await findFailure(scenario, seed, options);
    if (failure !== null) return { seed, failure };
  }
  return null;
}

/** True when both lives failed in the same way. @internal */
export function isSameFailure(a: Failure, b: Failure | null): boolean {
  return b !== null && a.kind === b.kind && a.name === b.name && a.line === b.line;
}

/** Events after which nothing more happens to a failure. @internal */
export function eventsUpTo(events: readonly PlannedEvent[], { event }: Failure): readonly PlannedEvent[] {
  return event === null ? events : events.slice(0, event + 1);
}
