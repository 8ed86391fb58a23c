import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { validateMachine } from '../../src/survey/validate-machine.ts';
import { arbitraryMachine } from '../support/arbitrary-machine.ts';
import { arbitraryOddMachine } from '../support/arbitrary-odd-machine.ts';
import { comparePlansWithBringUps } from '../support/plan-agrees-with-up.ts';

describe('plan and up', () => {
  it('agree on every random machine: outcome, step, errno, reason, TDMRs, PAMTs to the byte', async () => {
    const outcomes = await comparePlansWithBringUps(arbitraryMachine, 250);
    // The draws must reach success and the failures that depend on memory, or the comparison says little.
    for (const code of ['ok', 'reserved-areas-exhausted', 'seamcall-failed', 'tdmrs-exhausted']) {
      expect(outcomes.get(code) ?? 0, `${code}: ${JSON.stringify([...outcomes])}`).toBeGreaterThan(0);
    }
  });

  it('agree on odd machines', async () => {
    const outcomes = await comparePlansWithBringUps(arbitraryOddMachine, 150);
    for (const code of ['ok', 'seamcall-failed', 'seamcall-gp', 'hibernation', 'too-few-keyids']) {
      expect(outcomes.get(code) ?? 0, `${code}: ${JSON.stringify([...outcomes])}`).toBeGreaterThan(0);
    }
  });

  it('are compared on machines that a description may hold', () => {
    for (const machines of [arbitraryMachine, arbitraryOddMachine]) {
      const check = fc.property(machines, (machine) => {
        // A kernel may know of reserved pages inside usable memory; the firmware's map does not overlap.
        const e820 = machine.e820.filter((entry) => entry.type !== 'reserved');
        validateMachine({ ...machine, e820 }, 'random machine');
      });
      fc.assert(check, { numRuns: 200 });
    }
  });
});
