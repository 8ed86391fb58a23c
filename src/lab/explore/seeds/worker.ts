/** What a worker thread does: plays the seeds of one batch, in order, until one fails. */
import { findScenario } from '../../scenario/find-scenario.ts';
import type { PolicySet, Scenario } from '../../scenario/scenario.ts';
import { type Failure, firstFailure } from './failure.ts';

/** Plain data. @internal */
export interface Batch {
  /** A file, or a scenario that comes with tdxlab. */
  readonly scenario: string;
  /** Instead of the scenario's own. */
  readonly policy: PolicySet | null;
  readonly firstSeed: number;
  readonly seeds: number;
}

/** Plain data. @internal */
export interface BatchResult {
  /** Seeds played, the one that failed included. */
  readonly played: number;
  readonly events: number;
  readonly found: { readonly seed: number; readonly failure: Failure } | null;
}

/** Scenarios that this thread has read, by name. */
const read = new Map<string, Promise<Scenario>>();

/** Called by the pool. @internal */
export async function playBatch({ scenario: name, policy, firstSeed, seeds }: Batch): Promise<BatchResult> {
  if (!read.has(name)) read.set(name, findScenario(name));
  const scenario = await read.get(name)!;
  let events = 0;
  const options = {
    ...(policy === null ? {} : { policy }),
    onEvent: (): void => void events++,
  };
  const found = await firstFailure(scenario, { firstSeed, seeds }, options);
  return { played: found === null ? seeds : found.seed - firstSeed + 1, events, found };
}
