import { describe, expect, it } from 'vitest';
import { POLICY_SETS } from '../../../src/lab/scenario/policy-sets.ts';
import { randomEvents, smallScenario } from './random-events.ts';
import { compareHosts } from './refinement.ts';

const scenario = await smallScenario();

/** What events of random lives must have come to somewhere, or the comparison says little. */
const SEEN = [
  'done ',
  'refused keyids-exhausted',
  'refused memory-in-use',
  'refused no-page',
  'refused no-tdx-memory',
  'refused not-tdx-memory',
  'refused page-not-tdx',
  'refused tdx-is-on',
  'killed module-refused-page',
];

describe('the abstract host and the real one', () => {
  it('come to the same in 66,000 random events under all policies', async () => {
    const seen = new Set<string>();
    for (const policy of POLICY_SETS) {
      for (let seed = 1000; seed < 1030; seed++) {
        const counts = await compareHosts(scenario, policy, randomEvents(seed, 100, seed % 2 === 0));
        for (const outcome of counts.keys()) seen.add(outcome);
      }
    }
    expect([...seen]).toEqual(expect.arrayContaining(SEEN));
  });
});
