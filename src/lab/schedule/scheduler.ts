/** Lets the tasks of a host take turns, in an order that a seed or a list of choices decides. */
import type { SchedulingPoint } from '../../kernel/scheduling.ts';
import { EntropySource } from '../../machine/random.ts';

/** Picks one of `choices` tasks that could go on: a number below it. @public */
export type Chooser = (choices: number) => number;

/** One turn: who could go on, in the order in which they began to wait, and who did. @public */
export interface Turn {
  readonly choices: number;
  readonly chosen: number;
  /** The scheduling point at which the chosen task waited. */
  readonly where: string;
}

/** Turns after which tasks that come to no end are stopped. */
const MOST_TURNS = 100_000;

/** Choices that follow from a seed. @public */
export function seededChooser(seed: bigint): Chooser {
  const source = new EntropySource(seed);
  return (choices) => Number(source.next64()! % BigInt(choices));
}

/** The choices of an earlier run; the first task where they have ended. @public */
export function replayChooser(choices: readonly number[]): Chooser {
  let at = 0;
  return () => choices[at++] ?? 0;
}

/**
 * Attached to a kernel (`kernel.schedule = scheduler.point`), it holds every task at each scheduling point until its
 * turn comes. Between two turns one task runs, whatever promises it awaits.
 * @public
 */
export class Scheduler {
  readonly turns: Turn[] = [];
  /** Looks on before every turn, while all tasks are held; what it throws ends `run`. */
  observer: ((turn: Turn) => void) | null = null;
  readonly #choose: Chooser;
  readonly #waiting: { readonly where: string; readonly resume: () => void }[] = [];
  readonly #alive = new Set<string>();

  constructor(choose: Chooser) {
    this.#choose = choose;
  }

  /** What the kernel calls at its scheduling points. Before the first task and after the last one nobody waits. */
  readonly point: SchedulingPoint = async (where) => {
    if (this.#alive.size > 0) await new Promise<void>((resume) => this.#waiting.push({ where, resume }));
  };

  /** Adds a task; it begins when its turn comes. Its result is that of `work`. */
  start<T>(name: string, work: () => Promise<T>): Promise<T> {
    this.#alive.add(name);
    const result = this.point(`start ${name}`)
      .then(work)
      .finally(() => this.#alive.delete(name));
    // Whoever awaits the result hears of an error; `run` may see the end first.
    result.catch(() => undefined);
    return result;
  }

  /** Gives turns until every task has ended. Throws Error when none can go on, or when there is no end. */
  async run(): Promise<void> {
    for (;;) {
      await settled();
      if (this.#alive.size === 0) return;
      this.#turn();
    }
  }

  #turn(): void {
    const choices = this.#waiting.length;
    const tasks = [...this.#alive].join(', ');
    if (choices === 0) throw new Error(`deadlock: none of ${tasks} can go on`);
    if (this.turns.length === MOST_TURNS) throw new Error(`no end after ${MOST_TURNS} turns of ${tasks}`);
    const chosen = this.#choose(choices);
    const [task] = this.#waiting.splice(chosen, 1);
    if (task === undefined) throw new Error(`choice ${chosen} of ${choices} tasks`);
    const turn = { choices, chosen, where: task.where };
    this.turns.push(turn);
    this.observer?.(turn);
    task.resume();
  }
}

/** Resolves when no promise that is due has work left: the event loop comes back after all microtasks. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
