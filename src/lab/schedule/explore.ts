/** Runs the same tasks in many orders: by seeds, or every order there is. */
import { replayChooser, Scheduler, seededChooser, type Turn } from './scheduler.ts';

/** Sets a fresh host up, starts its tasks on the scheduler, runs it and checks what came of it. @public */
export type Schedulable = (scheduler: Scheduler) => Promise<void>;

/** A run in which `body` threw. @public */
export class ScheduleFailure extends Error {
  readonly choices: readonly number[];
  constructor(how: string, turns: readonly Turn[], cause: unknown) {
    const points = turns.map(({ where }) => where).join(' > ');
    super(`${how}: ${cause instanceof Error ? cause.message : String(cause)}; turns: ${points}`, { cause });
    this.name = 'ScheduleFailure';
    this.choices = turns.map(({ chosen }) => chosen);
  }
}

/** Runs `body` once per seed from `first` on. Throws ScheduleFailure naming the seed that fails. @public */
export async function exploreSeeds(runs: number, body: Schedulable, first = 1n): Promise<void> {
  for (let run = 0n; run < BigInt(runs); run++) {
    const seed = first + run;
    await runOnce(new Scheduler(seededChooser(seed)), body, `seed ${seed}`);
  }
}

/**
 * Runs `body` in every order of turns, depth first, at most `limit` orders. Tasks that wait for one another by trying
 * again have no end of orders; `delays` bounds how often tasks in all are passed over that waited longer than the chosen
 * one, and so every task comes to its turn. Returns how many orders there were, and whether that was all. Throws
 * ScheduleFailure with the choices that fail.
 * @public
 */
export async function exploreAll(
  body: Schedulable,
  limit = Number.POSITIVE_INFINITY,
  delays = Number.POSITIVE_INFINITY,
): Promise<{ readonly runs: number; readonly complete: boolean }> {
  let choices: readonly number[] | null = [];
  for (let runs = 1; ; runs++) {
    const scheduler = new Scheduler(replayChooser(choices));
    await runOnce(scheduler, body, `choices ${choices.join(' ')}`);
    choices = nextChoices(scheduler.turns, delays);
    if (choices === null) return { runs, complete: true };
    if (runs >= limit) return { runs, complete: false };
  }
}

/** The choices that follow in depth-first order: the last turn that may pass over one more task does. */
function nextChoices(turns: readonly Turn[], delays: number): readonly number[] | null {
  let passed = turns.reduce((sum, { chosen }) => sum + chosen, 0);
  for (let last = turns.length - 1; last >= 0; last--) {
    const { choices, chosen } = turns[last]!;
    if (chosen + 1 < choices && passed < delays) {
      return [...turns.slice(0, last).map((turn) => turn.chosen), chosen + 1];
    }
    passed -= chosen;
  }
  return null;
}

async function runOnce(scheduler: Scheduler, body: Schedulable, how: string): Promise<void> {
  try {
    await body(scheduler);
  } catch (error) {
    throw new ScheduleFailure(how, scheduler.turns, error);
  }
}
