import { describe, expect, it } from 'vitest';
import { compareScenario } from '../../../src/lab/scenario/compare.ts';
import { findScenario, shippedScenarios } from '../../../src/lab/scenario/find-scenario.ts';

/** The machine may be busy; a quiet one takes a few seconds. */
const TIMEOUT_MS = 60_000;

describe('shipped scenarios under every policy', () => {
  it.each(shippedScenarios())(
    '%s: all it expects holds under every policy, and no invariant is broken',
    async (name) => {
      const { rows } = await compareScenario(await findScenario(name));
      const wrong = rows.flatMap(({ policy, verdicts, violations }) => [
        ...verdicts.filter(({ holds }) => !holds).map((verdict) => ({ policy, ...verdict })),
        ...violations.map((violation) => ({ policy, ...violation })),
      ]);
      expect(wrong).toEqual([]);
      expect(rows.reduce((sum, { verdicts }) => sum + verdicts.length, 0)).toBeGreaterThan(2);
    },
    TIMEOUT_MS,
  );
});
