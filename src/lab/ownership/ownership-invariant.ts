/** What an invariant of ownership is. */
import type { HostLook } from './host-look.ts';

/** Yields one sentence for each breach; the function's name is the invariant's. @public */
export type OwnershipInvariant = (look: HostLook) => Iterable<string>;
