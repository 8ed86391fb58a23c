/** What came of an event: never nothing, and never without a reason unless it is done. */
import { KernelError, type Reason } from '../../../abi/errno.ts';
import type { EventKind } from '../language/event-schema.ts';

/**
 * `refused`: nothing changed, with a reason. `killed`: a TD lives no more. `failed`: it went wrong half-way, or the host
 * itself is no more.
 * @public
 */
export type Result = 'done' | 'refused' | 'killed' | 'failed';

/** @public */
export interface Outcome {
  /** Nanoseconds since the kernel booted. */
  readonly at: number;
  /** What the event is called; of a consequence the TD's name. */
  readonly event: string;
  /** `td-fate`: what an event did to a TD besides. */
  readonly do: EventKind | 'td-fate';
  readonly result: Result;
  readonly reason: Reason | null;
  /** Virtual nanoseconds that it took. */
  readonly tookNs: number;
}

/** A handler throws it where the event was not simply refused. @internal */
export class EventEnd extends Error {
  readonly result: 'killed' | 'failed';
  readonly reason: Reason;

  constructor(result: 'killed' | 'failed', reason: Reason) {
    super(reason.text);
    this.name = 'EventEnd';
    this.result = result;
    this.reason = reason;
  }
}

/** The first cause in a reason that names another: what a person counts refusals by. @public */
export function rootCause(reason: Reason): Reason {
  const why = reason.data.why as Reason | undefined;
  return why !== undefined && typeof why.code === 'string' ? rootCause(why) : reason;
}

/** A refusal of the lab's own: the event asks for what is not there. @internal */
export function noSuch(kind: string, name: string): KernelError {
  return new KernelError('ENOENT', `no-such-${kind}`, `there is no ${kind} '${name}' now`, { name });
}
