/** Hosts that need no file, by name. The figures are of real machines with public logs. */
import { type Evidence, newEvidence } from '../evidence.ts';
import type { EmbeddedHost } from './embedded-host.ts';
import { EMR_256G_4NODE } from './emr-256g-4node.ts';
import { SPR_2T_2NODE } from './spr-2t-2node.ts';
import { SPR_256G_2NODE } from './spr-256g-2node.ts';

export type { EmbeddedHost, Expected } from './embedded-host.ts';

/** What runs where no host is named. @public */
export const DEFAULT_HOST = 'spr-256g-2node';

/** @public */
export const EMBEDDED_HOSTS: ReadonlyMap<string, EmbeddedHost> = new Map(
  [SPR_256G_2NODE, EMR_256G_4NODE, SPR_2T_2NODE].map((host) => [host.machine.name, host]),
);

/** An embedded host as a source like any other. @internal */
export function evidenceOf({ machine, kernel, observed }: EmbeddedHost): Evidence {
  return { ...newEvidence(machine.name), machine, kernel, observed };
}
