/** What must hold in every scenario under every policy. */
import type { Outcome } from '../engine/outcome.ts';
import type { ScenarioHost } from '../engine/scenario-host.ts';
import type { GivenPages } from './given-pages.ts';

/** What an invariant looks at after an event. @internal */
export interface InvariantLook {
  readonly host: ScenarioHost;
  /** Of the event just played, its own first. */
  readonly outcomes: readonly Outcome[];
  readonly given: GivenPages;
  /** Pages of the allocator that the kernel itself had when it was last looked at. */
  readonly kernelPages: number;
}

/** @public */
export interface ScenarioInvariant {
  readonly name: string;
  /** What holds, in one sentence. */
  readonly title: string;
  /** After every event, `always` even once the host is no more; `audit`: now and then and at the end. */
  readonly when: 'always' | 'event' | 'audit';
  /** What is wrong, or null. */
  readonly check: (look: InvariantLook) => string | null;
}

/** An invariant that did not hold. @public */
export interface Violation {
  readonly invariant: string;
  readonly text: string;
  /** Number of the event after which it was seen, from 0. */
  readonly event: number;
}
