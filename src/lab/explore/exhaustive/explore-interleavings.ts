/** Every interleaving of a scenario's tasks, on the abstract host of the scenario. */
import type { PolicySet, Scenario } from '../../scenario/scenario.ts';
import { AbstractHost } from '../abstract/abstract-host.ts';
import { abstractConfig } from '../abstract/from-scenario.ts';
import { type SearchOptions, type SearchResult, searchAll } from './search.ts';

/** @public */
export interface Interleavings extends SearchResult {
  readonly scenario: string;
  readonly policy: string;
  /** Tasks with the number of their events. */
  readonly tasks: readonly { readonly name: string; readonly events: number }[];
}

/** Times do not count: events of one TD or area keep their order, all others come in every order. Throws InputError. @public */
export function exploreInterleavings(
  scenario: Scenario,
  { policy = scenario.policy, ...options }: SearchOptions & { readonly policy?: PolicySet } = {},
): Interleavings {
  const config = abstractConfig({ ...scenario, policy });
  return {
    scenario: scenario.name,
    policy: policy.name,
    tasks: config.tasks.map(({ name, events }) => ({ name, events: events.length })),
    ...searchAll(new AbstractHost(config), options),
  };
}
