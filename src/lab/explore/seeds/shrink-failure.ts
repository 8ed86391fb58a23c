/** The shortest list of events and faults with which a scenario still fails as it did. */
import type { RunOptions } from '../../scenario/engine/run-scenario.ts';
import type { Scenario } from '../../scenario/scenario.ts';
import { type PlannedEvent, timeline } from '../../scenario/timeline.ts';
import { eventsUpTo, type Failure, findFailure, isSameFailure } from './failure.ts';
import { shrink } from './shrink.ts';

/** A failing life, made short. @public */
export interface ShrunkFailure {
  readonly seed: number;
  /** Of the short life. */
  readonly failure: Failure;
  readonly events: readonly PlannedEvent[];
  readonly faults: Scenario['faults'];
  /** Events of the life that failed first. */
  readonly eventsBefore: number;
  /** Lives played to find the shortest. */
  readonly tries: number;
}

/** Throws Error when the failure does not repeat, which would be a bug of ours. @public */
export async function shrinkFailure(
  scenario: Scenario,
  seed: number,
  failure: Failure,
  options: Pick<RunOptions, 'policy' | 'prepare'> = {},
): Promise<ShrunkFailure> {
  const all = timeline(scenario, seed);
  let tries = 0;
  const failureOf = (
    events: readonly PlannedEvent[],
    faults: Scenario['faults'],
  ): Promise<Failure | null> => {
    tries++;
    return findFailure({ ...scenario, faults }, seed, { ...options, events });
  };
  const isFailing = async (events: readonly PlannedEvent[], faults = scenario.faults): Promise<boolean> =>
    isSameFailure(failure, await failureOf(events, faults));

  const first = eventsUpTo(all, failure);
  if (!(await isFailing(first))) throw new Error(`seed ${seed} fails only sometimes: ${failure.text}`);
  // What is expected of events fails without them too; such a failure is told as it is.
  const isTrivial = failure.kind === 'expectation' && (await isFailing([]));
  const events = isTrivial ? first : await shrink(first, (part) => isFailing(part));
  const faults = await shrink(scenario.faults, (part) => isFailing(events, part));
  const last = await failureOf(events, faults);
  if (last === null) throw new Error(`seed ${seed} fails only sometimes: ${failure.text}`);
  return { seed, failure: last, events, faults, eventsBefore: all.length, tries };
}
