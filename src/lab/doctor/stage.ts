/** A stage in the coming up of a TDX host. */
import type { HostFacts } from '../../survey/live/host-facts.ts';
import type { Finding } from './finding.ts';

/** Stages in their order. @public */
export type StageId =
  | 'processor'
  | 'bios'
  | 'kernel'
  | 'command-line'
  | 'detection'
  | 'module'
  | 'initialisation'
  | 'memory'
  | 'kvm'
  | 'keyids'
  | 'cpus'
  | 'tools';

/** @internal */
export interface Stage {
  readonly id: StageId;
  readonly title: string;
  /** Without these it cannot pass: while one of them fails, only what it finds by itself is reported. */
  readonly after: readonly StageId[];
  /** Looks at the facts alone. */
  readonly judge: (facts: HostFacts) => Finding;
}
