/** Plays a scenario with one seed after the other on worker threads, until one fails; that one is made short. */
import { Tinypool } from 'tinypool';
import { findScenario } from '../../scenario/find-scenario.ts';
import type { PolicySet } from '../../scenario/scenario.ts';
import type { Failure } from './failure.ts';
import { type ShrunkFailure, shrinkFailure } from './shrink-failure.ts';
import type { Batch, BatchResult } from './worker.ts';

/** @public */
export interface ExploreOptions {
  readonly seeds: number;
  readonly firstSeed: number;
  /** Threads; what comes out does not depend on it. */
  readonly workers: number;
  /** Instead of the scenario's own. */
  readonly policy?: PolicySet;
  /** Told of seeds played and of all. */
  readonly onProgress?: (played: number, seeds: number) => void;
}

/** @public */
export interface Exploration {
  readonly scenario: string;
  readonly firstSeed: number;
  /** Seeds played, from the first to the one that failed. */
  readonly seeds: number;
  /** Events of those that did not fail, and of the one that did. */
  readonly events: number;
  /** Of the first seed that fails; null where none does. */
  readonly found: (ShrunkFailure & { readonly original: Failure }) | null;
}

/** Seeds of a batch: large enough that threads seldom ask, small enough that they end together. */
const BATCH = 16;

/** The lowest failing seed, whatever the number of workers. Throws InputError for a scenario that cannot be read. @public */
export async function exploreScenario(name: string, options: ExploreOptions): Promise<Exploration> {
  const { firstSeed, seeds, policy = null, onProgress } = options;
  const scenario = await findScenario(name);
  const pool = new Tinypool({
    filename: new URL('./worker.ts', import.meta.url).href,
    minThreads: options.workers,
    maxThreads: options.workers,
  });
  const results: BatchResult[] = [];
  const count = Math.ceil(seeds / BATCH);
  let next = 0;
  let played = 0;
  // Batches before one that fails are all played: the lowest seed that fails lies in the first that failed.
  let last = count;
  const work = async (): Promise<void> => {
    while (next < last) {
      const index = next++;
      const first = index * BATCH;
      const batch: Batch = {
        scenario: name,
        policy,
        firstSeed: firstSeed + first,
        seeds: Math.min(BATCH, seeds - first),
      };
      const result: BatchResult = await pool.run(batch, { name: 'playBatch' });
      results[index] = result;
      if (result.found !== null) last = Math.min(last, index);
      played += result.played;
      onProgress?.(played, seeds);
    }
  };
  try {
    await Promise.all(Array.from({ length: options.workers }, work));
  } finally {
    await pool.destroy();
  }
  const told = results.slice(0, last + 1);
  const failed = told.at(-1)?.found ?? null;
  return {
    scenario: scenario.name,
    firstSeed,
    seeds: told.reduce((sum, batch) => sum + batch.played, 0),
    events: told.reduce((sum, batch) => sum + batch.events, 0),
    found: failed && {
      ...(await shrinkFailure(scenario, failed.seed, failed.failure, policy === null ? {} : { policy })),
      original: failed.failure,
    },
  };
}
