/** Visits every interleaving of an abstract host's tasks, breadth first, each state once. */
import type { AbstractHost, AbstractOutcome } from '../abstract/abstract-host.ts';
import { ABSTRACT_INVARIANTS } from '../abstract/invariants.ts';
import { StateSet } from './state-set.ts';

/** One step on the way to a state. @public */
export interface PathStep {
  readonly task: string;
  /** Event and step. */
  readonly step: string;
  /** What the event came to, when the step ended it. */
  readonly outcome: AbstractOutcome | null;
}

/** @public */
export interface BrokenInvariant {
  readonly invariant: string;
  readonly text: string;
  /** Shortest there is. */
  readonly path: readonly PathStep[];
}

/** @public */
export interface SearchResult {
  readonly states: number;
  readonly transitions: number;
  /** Steps of the longest shortest path to a state. */
  readonly depth: number;
  /** States in which no task has anything left to do. */
  readonly ends: number;
  /** Everything was visited; false where `depth` or `mostStates` came first. */
  readonly complete: boolean;
  /** The first invariant found broken; null where all hold. */
  readonly broken: BrokenInvariant | null;
}

/** @public */
export interface SearchOptions {
  /** Steps after which no state is followed; no limit where it is left out. */
  readonly depth?: number;
  /** Default as many as fit in 1 GiB. */
  readonly mostStates?: number;
  /** Told now and then. */
  readonly onProgress?: (states: number, depth: number) => void;
}

/** Of all states that are kept. */
const MOST_BYTES = 2 ** 30;
/** States between two reports of progress. */
const REPORT_EVERY = 65_536;

/** Stops at the first invariant that is broken. The same host gives the same result. @public */
export function searchAll(host: AbstractHost, options: SearchOptions = {}): SearchResult {
  const {
    depth: mostDepth = Number.POSITIVE_INFINITY,
    mostStates = MOST_BYTES / (4 * host.layout.size),
    onProgress,
  } = options;
  const tasks = host.config.tasks.length;
  const seen = new StateSet(host.layout.size);
  const trail = new Trail();
  const from = host.initial();
  const to = new Int32Array(from.length);
  seen.add(from);
  trail.add(-1, 0, 0);
  let transitions = 0;
  let depth = 0;
  let ends = 0;
  let levelEnd = 1;
  const result = (complete: boolean, broken: BrokenInvariant | null): SearchResult => ({
    states: seen.count,
    transitions,
    depth,
    ends,
    complete,
    broken,
  });
  const first = brokenIn(host, from);
  if (first !== null) return result(false, { ...first, path: [] });
  for (let number = 0; number < seen.count; number++) {
    if (number === levelEnd) {
      depth++;
      levelEnd = seen.count;
    }
    if (depth >= mostDepth || seen.count >= mostStates) return result(false, null);
    if (number % REPORT_EVERY === REPORT_EVERY - 1) onProgress?.(seen.count, depth);
    seen.read(number, from);
    let moves = 0;
    for (let task = 0; task < tasks; task++) {
      const ways = host.ways(from, task);
      for (let way = 0; way < ways; way++) {
        to.set(from);
        host.take(to, task, way);
        moves++;
        const isNew = seen.add(to) >= 0;
        if (isNew) trail.add(number, task, way);
        // A state that is known was looked at when it was new; what a step ended may differ.
        const found = isNew || host.outcome !== null ? brokenIn(host, to) : null;
        if (found === null) continue;
        transitions += moves;
        return result(false, { ...found, path: pathOf(host, trail.to(number), [task, way]) });
      }
    }
    transitions += moves;
    if (moves > 0) continue;
    ends++;
    if (host.isOver(from)) continue;
    const path = pathOf(host, trail.to(number));
    return result(false, { invariant: 'no-deadlock', text: 'tasks wait for each other', path });
  }
  return result(true, null);
}

function brokenIn(
  host: AbstractHost,
  s: Int32Array,
): { readonly invariant: string; readonly text: string } | null {
  for (const { name, check } of ABSTRACT_INVARIANTS) {
    const text = check(host, s);
    if (text !== null) return { invariant: name, text };
  }
  return null;
}

/** Plays the moves again, for their names and outcomes. */
function pathOf(host: AbstractHost, moves: readonly Move[], last?: Move): readonly PathStep[] {
  const s = host.initial();
  return [...moves, ...(last === undefined ? [] : [last])].map(([task, way]) => {
    const step = host.stepName(s, task);
    host.take(s, task, way);
    return { task: host.config.tasks[task]!.name, step, outcome: host.outcome };
  });
}

type Move = readonly [task: number, way: number];

/** How each state was first reached. */
class Trail {
  #from = new Int32Array(1 << 12);
  #moves = new Int32Array(1 << 12);
  #count = 0;

  add(from: number, task: number, way: number): void {
    if (this.#count === this.#from.length) {
      this.#from = grown(this.#from);
      this.#moves = grown(this.#moves);
    }
    this.#from[this.#count] = from;
    this.#moves[this.#count++] = task * 0x1_0000 + way;
  }

  /** Moves from the first state to state `number`. */
  to(number: number): readonly Move[] {
    const moves: Move[] = [];
    for (let at = number; this.#from[at]! >= 0; at = this.#from[at]!) {
      const move = this.#moves[at]!;
      moves.push([move >>> 16, move & 0xffff]);
    }
    return moves.reverse();
  }
}

function grown(array: Int32Array): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(2 * array.length);
  larger.set(array);
  return larger;
}
