import { describe, expect, it } from 'vitest';
import { compareScenario } from '../../../src/lab/scenario/compare.ts';
import { findScenario, shippedScenarios } from '../../../src/lab/scenario/find-scenario.ts';
import { POLICY_SET_NAMES, policySet } from '../../../src/lab/scenario/policy-sets.ts';

/** Of every kind one; the slow suite takes them all. */
const FEW = ['linux-7.2', 'cmr-based', 'allow+trust', 'separate-node'];
const TIMEOUT_MS = 60_000;

describe('shipped scenarios', () => {
  it('are at least eight, each with its argument and expectations', async () => {
    const names = shippedScenarios();
    expect(names.length).toBeGreaterThanOrEqual(8);
    for (const name of names) {
      const scenario = await findScenario(name);
      expect(scenario.name).toBe(name);
      expect(scenario.argument.length).toBeGreaterThan(80);
      expect(scenario.expect.length).toBeGreaterThan(2);
    }
  });

  it.each(shippedScenarios())(
    '%s: all it expects holds under a policy of every kind, and no invariant is broken',
    async (name) => {
      const { rows } = await compareScenario(await findScenario(name), {
        policies: FEW.map((few) => policySet(few)!),
      });
      const wrong = rows.flatMap(({ policy, verdicts, violations }) => [
        ...verdicts.filter(({ holds }) => !holds).map((verdict) => ({ policy, ...verdict })),
        ...violations.map((violation) => ({ policy, ...violation })),
      ]);
      expect(wrong).toEqual([]);
      expect(rows.reduce((sum, { verdicts }) => sum + verdicts.length, 0)).toBeGreaterThan(0);
    },
    TIMEOUT_MS,
  );

  it('between them expect something of every policy', async () => {
    const named = new Set<string>();
    for (const name of shippedScenarios()) {
      for (const one of (await findScenario(name)).expect)
        for (const policy of one.under ?? []) named.add(policy);
    }
    const silent = POLICY_SET_NAMES.filter((policy) => !named.has(policy));
    expect(silent).toEqual([]);
  });
});
