/** What an invariant is. */
import type { AbstractState } from './abstract-state.ts';
import type { ModuleView } from './module-view.ts';

/**
 * Looks at what the last call did, as the abstract state has it. Yields one sentence for each breach; the function's
 * name is the invariant's.
 * @public
 */
export type CallInvariant = (state: AbstractState) => Iterable<string>;

/** The same for the module as it really is between two calls. @public */
export type StateInvariant = (state: AbstractState, view: ModuleView) => Iterable<string>;
