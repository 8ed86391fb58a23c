/**
 * A TDX host as a small array of numbers: pages are counts per area and owner, every event is the steps between which a
 * real kernel may be preempted. Steps change the state that they are given and nothing else.
 */
import type { KernelPolicy } from '../../../kernel/policy/kernel-policy.ts';
import { knobValues } from '../../../kernel/policy/knobs.ts';
import { ZONE_ORDER } from '../../../kernel/zone.ts';
import type { AbstractConfig, AbstractEvent, AbstractEventKind, LiveKnob } from './config.ts';
import { LIVE_KNOBS } from './config.ts';
import { enableAtBoot, takeForKernel } from './enabling.ts';
import { AREA, HOST, Layout, MEMORY, OWNER, TASK, TDX } from './layout.ts';
import { STEPS } from './steps/steps.ts';

/** A state of an abstract host. @public */
export type AbstractState = Int32Array;

/** What came of an event. @public */
export interface AbstractOutcome {
  readonly task: number;
  readonly event: number;
  readonly result: 'done' | 'refused' | 'killed' | 'failed';
  /** Code of the reason; null when done. */
  readonly reason: string | null;
}

/** What of pages is decided outside the model. */
export type PageUse = 'kernel' | 'pamt' | 'control' | 'memory' | 'host';

/** Where pages come from, instead of a choice of the search: what a real kernel did. @internal */
export interface PageSource {
  /** The next pages of the allocation under way: `enough` where it had all, `nothing` where it found none. */
  next(use: PageUse): { readonly area: number; readonly pages: number } | 'enough' | 'nothing';
  /** Pages that a TD gave back by part. */
  back(): readonly { readonly area: number; readonly pages: number }[];
}

/** One step of an event. @internal */
export interface Step<E extends AbstractEvent = AbstractEvent> {
  readonly name: string;
  /** In how many ways it can go on now; 0 while it waits. One where it is left out. */
  readonly ways?: (host: AbstractHost, s: AbstractState, task: number, event: E) => number;
  readonly take: (host: AbstractHost, s: AbstractState, task: number, event: E, way: number) => void;
}

/** @internal */
export type StepsOf<K extends AbstractEventKind> = readonly Step<AbstractEvent & { readonly do: K }>[];

const LIVE_VALUES = Object.fromEntries(LIVE_KNOBS.map((knob) => [knob, knobValues(knob)])) as {
  readonly [K in LiveKnob]: readonly KernelPolicy[K][];
};

/** @public */
export class AbstractHost {
  readonly config: AbstractConfig;
  readonly layout: Layout;
  /** What the step taken last ended; null where its event goes on. */
  outcome: AbstractOutcome | null = null;
  /** TDs that the step taken last killed besides. */
  readonly fates: number[] = [];
  /** Reasons by the numbers that states have for them; 0 is none. */
  readonly reasons: string[] = [''];
  source: PageSource | null = null;
  /** Fault point for tests: the policy whose promise this host does not keep. */
  broken: string | null = null;

  constructor(config: AbstractConfig) {
    this.config = config;
    const { areas, owners, tasks } = config;
    this.layout = new Layout(areas.length, owners.length, tasks.length);
  }

  /** The host when its kernel has booted, before any event. */
  initial(): AbstractState {
    const { config, layout } = this;
    const s = new Int32Array(layout.size);
    for (const knob of LIVE_KNOBS)
      s[layout.knob(knob)] = (LIVE_VALUES[knob] as readonly unknown[]).indexOf(config.policy[knob]);
    s[layout.host(HOST.keys)] = config.keyIds;
    config.areas.forEach(({ node, zone, pages, state }, i) => {
      s[layout.area(i, AREA.node)] = node;
      s[layout.area(i, AREA.zone)] = ZONE_ORDER.indexOf(zone);
      s[layout.area(i, AREA.state)] = MEMORY[state];
      s[layout.area(i, AREA.free)] = state === 'online' ? pages : 0;
    });
    takeForKernel(this, s, 'kernel', AREA.kept);
    enableAtBoot(this, s);
    return s;
  }

  /** Value of a knob that may change, as it is now. */
  knob<K extends LiveKnob>(s: AbstractState, knob: K): KernelPolicy[K] {
    return LIVE_VALUES[knob][s[this.layout.knob(knob)]!]!;
  }

  /** In how many ways a task can go on: 0 when it waits or has ended. */
  ways(s: AbstractState, task: number): number {
    const event = this.#event(s, task);
    if (event === undefined || s[this.layout.host(HOST.down)] !== 0) return 0;
    const step = this.#step(s, task, event);
    return step.ways === undefined ? 1 : step.ways(this, s, task, event);
  }

  /** Takes the next step of a task in one of its ways. */
  take(s: AbstractState, task: number, way: number): void {
    this.outcome = null;
    this.fates.length = 0;
    const event = this.#event(s, task)!;
    this.#step(s, task, event).take(this, s, task, event, way);
  }

  /** What the next step of a task is called. */
  stepName(s: AbstractState, task: number): string {
    const event = this.#event(s, task)!;
    return `${event.name}: ${this.#step(s, task, event).name}`;
  }

  /** True when no task has anything left to do. */
  isOver(s: AbstractState): boolean {
    if (s[this.layout.host(HOST.down)] !== 0) return true;
    return this.config.tasks.every((_, task) => this.#event(s, task) === undefined);
  }

  /** The task goes on with the step of this name. */
  goto(s: AbstractState, task: number, name: string): void {
    const event = this.#event(s, task)!;
    const index = STEPS[event.do].findIndex((step) => step.name === name);
    if (index < 0) throw new Error(`${event.do} has no step '${name}'`);
    s[this.layout.task(task, TASK.step)] = index;
  }

  /** The event of a task has come to its end. */
  finish(
    s: AbstractState,
    task: number,
    result: AbstractOutcome['result'],
    reason: string | null = null,
  ): void {
    const { layout } = this;
    const at = layout.task(task, 0);
    this.outcome = { task, event: s[at + TASK.pc]!, result, reason };
    s.fill(0, at + TASK.pc + 1, at + TASK.size);
    s[at + TASK.pc]!++;
    if (s[layout.host(HOST.lock)] === task + 1) s[layout.host(HOST.lock)] = 0;
  }

  /** Number of a reason in states. */
  reasonNumber(code: string): number {
    const known = this.reasons.indexOf(code);
    return known >= 0 ? known : this.reasons.push(code) - 1;
  }

  /** TDs that hold a KeyID, whatever became of them. */
  keyHolders(s: AbstractState): number {
    let count = 0;
    for (let i = 0; i < this.layout.owners; i++) count += s[this.layout.owner(i, OWNER.key)]!;
    return count;
  }

  #event(s: AbstractState, task: number): (AbstractEvent & { readonly name: string }) | undefined {
    return this.config.tasks[task]!.events[s[this.layout.task(task, TASK.pc)]!];
  }

  #step(s: AbstractState, task: number, event: AbstractEvent): Step {
    return STEPS[event.do][s[this.layout.task(task, TASK.step)]!] as Step;
  }
}

/** Whether the module is initialised and the kernel uses it. @internal */
export function isTdxOn(host: AbstractHost, s: AbstractState): boolean {
  const state = s[host.layout.host(HOST.tdx)];
  return state === TDX.initialized || state === TDX.shutDown;
}
