import { describe, expect, it } from 'vitest';
import { comparePlansWithBringUps } from '../support/plan-agrees-with-up.ts';

describe('plan and up', () => {
  it('agree on every random machine: outcome, step, errno, reason, TDMRs, PAMTs to the byte', async () => {
    const outcomes = await comparePlansWithBringUps(250);
    // The draws must reach success and the failures that depend on memory, or the comparison says little.
    for (const code of ['ok', 'reserved-areas-exhausted', 'seamcall-failed', 'tdmrs-exhausted']) {
      expect(outcomes.get(code) ?? 0, `${code}: ${JSON.stringify([...outcomes])}`).toBeGreaterThan(0);
    }
  });
});
