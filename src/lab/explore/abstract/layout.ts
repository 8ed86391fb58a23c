/** Where each part of an abstract host's state lies in its array of 32-bit numbers. */
import { LIVE_KNOBS, type LiveKnob } from './config.ts';

/** Fields of an area; `kept` are pages of the kernel itself, and what is leaked; `separate` is
 * the node that memory of its node goes to under `separate-node`, once there is one. */
export const AREA = {
  state: 0,
  node: 1,
  zone: 2,
  tdx: 3,
  free: 4,
  pamt: 5,
  kept: 6,
  separate: 7,
  size: 8,
} as const;
/** Fields of an owner; `node` is the one where its memory is looked for first. Its control pages and its memory by area follow. */
export const OWNER = { status: 0, key: 1, shared: 2, node: 3, size: 4 } as const;
/** Fields of a task. */
export const TASK = { pc: 0, step: 1, rest: 2, area: 3, pages: 4, reason: 5, size: 6 } as const;
/** Fields of the whole host; the live knobs follow. */
export const HOST = {
  tdx: 0,
  lock: 1,
  keys: 2,
  foreignKeys: 3,
  leakedKeys: 4,
  added: 5,
  down: 6,
  size: 7,
} as const;

/** State of memory; what is `idle` is plugged in, and the kernel does not have it. @internal */
export const MEMORY = { absent: 0, offline: 1, online: 2, idle: 3 } as const;
/** Status of an owner. @internal */
export const LIFE = { none: 0, building: 1, living: 2, dead: 3 } as const;
/** State of the module as the kernel knows it. @internal */
export const TDX = {
  uninitialized: 0,
  enabling: 1,
  initialized: 2,
  error: 3,
  disabled: 4,
  shutDown: 5,
} as const;

/** @internal */
export class Layout {
  readonly areas: number;
  readonly owners: number;
  readonly tasks: number;
  /** Numbers of a state. */
  readonly size: number;
  readonly #owner: number;
  readonly #task: number;
  readonly #ownerSize: number;
  readonly #host: number;

  constructor(areas: number, owners: number, tasks: number) {
    this.areas = areas;
    this.owners = owners;
    this.tasks = tasks;
    this.#host = 0;
    const first = HOST.size + LIVE_KNOBS.length;
    this.#owner = first + areas * AREA.size;
    this.#ownerSize = OWNER.size + 2 * areas;
    this.#task = this.#owner + owners * this.#ownerSize;
    this.size = this.#task + tasks * TASK.size;
  }

  host(field: number): number {
    return this.#host + field;
  }

  knob(knob: LiveKnob): number {
    return HOST.size + LIVE_KNOBS.indexOf(knob);
  }

  area(area: number, field: number): number {
    return HOST.size + LIVE_KNOBS.length + area * AREA.size + field;
  }

  owner(owner: number, field: number): number {
    return this.#owner + owner * this.#ownerSize + field;
  }

  /** Control pages of an owner in an area. */
  control(owner: number, area: number): number {
    return this.#owner + owner * this.#ownerSize + OWNER.size + area;
  }

  /** Memory of an owner in an area, in pages. */
  memory(owner: number, area: number): number {
    return this.#owner + owner * this.#ownerSize + OWNER.size + this.areas + area;
  }

  task(task: number, field: number): number {
    return this.#task + task * TASK.size + field;
  }
}
