import { describe, expect, it } from 'vitest';
import type { AbstractHost } from '../../../src/lab/explore/abstract/abstract-host.ts';
import { POLICY_SETS, policySet } from '../../../src/lab/scenario/policy-sets.ts';
import { randomEvents, smallScenario } from './random-events.ts';
import { compareHosts } from './refinement.ts';

const scenario = await smallScenario();

describe('the abstract host and the real one', () => {
  it.each(POLICY_SETS.map((set) => [set.name, set] as const))(
    'come to the same under %s',
    async (_, policy) => {
      for (let seed = 1; seed <= 4; seed++) {
        await expect(
          compareHosts(scenario, policy, randomEvents(seed, 60, seed % 2 === 0)),
        ).resolves.toBeDefined();
      }
    },
  );

  it('differ when the abstract one skips the notifiers', async () => {
    const skip = (host: AbstractHost): void => {
      host.broken = 'notifier';
    };
    await expect(differing('linux-7.2', skip)).rejects.toThrow(/and abstractly done/);
  });

  it('differ when the abstract one does not look at pages', async () => {
    const skip = (host: AbstractHost): void => {
      host.broken = 'check';
    };
    await expect(differing('allow+check', skip)).rejects.toThrow(/abstractly/);
  });
});

async function differing(name: string, prepare: (host: AbstractHost) => void): Promise<void> {
  for (let seed = 1; seed <= 60; seed++)
    await compareHosts(scenario, policySet(name)!, randomEvents(seed, 60), prepare);
}
