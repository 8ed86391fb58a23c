/** Runs many races of one kind of VM; a failure says how to repeat it. */
import { exploreSeeds } from '../../../src/lab/schedule/explore.ts';
import type { Scheduler } from '../../../src/lab/schedule/scheduler.ts';
import type { Program } from './program.ts';
import { type Outcome, runRace, type Sabotage } from './race.ts';
import { type RaceHost, raceHost, type Subject } from './subjects.ts';

/** What many races came to. */
export interface Tally {
  schedules: number;
  /** Different orders of turns. */
  readonly orders: Set<string>;
  /** Scheduling points at which some task waited, with how often. */
  readonly points: Map<string, number>;
  /** Reads whose result was certain. */
  firm: number;
  /** vCPUs whose scripts came to their end. */
  finished: number;
  /** Why threads of vCPUs gave up before that, with how often. */
  readonly gaveUp: Map<string, number>;
  /** Looks at who owns what. */
  looks: number;
}

/** Hosts are used again as long as nothing breaks on them. */
export class RaceTrack {
  readonly subject: Subject;
  readonly tally: Tally = {
    schedules: 0,
    orders: new Set(),
    points: new Map(),
    firm: 0,
    finished: 0,
    gaveUp: new Map(),
    looks: 0,
  };
  readonly #sabotage: Sabotage | undefined;
  #host: RaceHost | null = null;

  constructor(subject: Subject, sabotage?: Sabotage) {
    this.subject = subject;
    this.#sabotage = sabotage;
  }

  /** One race. Throws what breaks, after which the next one gets a new host. */
  async run(scheduler: Scheduler, program: Program): Promise<void> {
    const host = this.#host ?? (await raceHost(this.subject));
    this.#host = null;
    const outcome = await runRace(scheduler, host, this.subject, program, this.#sabotage);
    this.#host = host;
    this.#count(scheduler, outcome);
  }

  /**
   * `seeds` orders of a program, by seeds from `first` on. Throws Error with the program, the seed and the turns: to
   * repeat it, explore the same program with one seed on a new track.
   */
  async explore(program: Program, seeds: number, first: bigint): Promise<void> {
    try {
      await exploreSeeds(seeds, (scheduler) => this.run(scheduler, program), first);
    } catch (error) {
      const text = JSON.stringify(program);
      throw new Error(`${this.subject.name}, program ${text}, ${(error as Error).message}`, { cause: error });
    }
  }

  #count({ turns }: Scheduler, { firm, finished, gaveUp, looks }: Outcome): void {
    const { tally } = this;
    tally.schedules++;
    tally.orders.add(turns.map(({ where, chosen }) => `${chosen}${where}`).join(' '));
    for (const { where } of turns) tally.points.set(where, (tally.points.get(where) ?? 0) + 1);
    tally.firm += firm;
    tally.finished += finished;
    for (const why of gaveUp) tally.gaveUp.set(why, (tally.gaveUp.get(why) ?? 0) + 1);
    tally.looks += looks;
  }
}
