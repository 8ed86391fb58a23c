import { describe, expect, it } from 'vitest';
import { exploreInterleavings } from '../../../src/lab/explore/exhaustive/explore-interleavings.ts';
import { POLICY_SETS } from '../../../src/lab/scenario/policy-sets.ts';
import { smallRace } from './small-race.ts';

/** The window goes again, and the second TD grows. */
const MORE = `
  - { at: 3s, do: offline, memory: cxl }
  - { at: 2s, do: td-grow, td: b, size: 64MiB }`;

describe('every interleaving of a small host', () => {
  it.each(POLICY_SETS.map((set) => [set.name, set] as const))(
    'breaks nothing under %s',
    async (_, policy) => {
      const found = exploreInterleavings(await smallRace(MORE), { policy });
      expect(found).toMatchObject({ broken: null, complete: true });
      expect(found.states).toBeGreaterThan(policy.name === 'opt-in' ? 100 : 5000);
    },
  );
});
