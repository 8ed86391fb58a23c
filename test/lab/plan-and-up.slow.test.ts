import { describe, expect, it } from 'vitest';
import { arbitraryMachine } from '../support/arbitrary-machine.ts';
import { arbitraryOddMachine } from '../support/arbitrary-odd-machine.ts';
import { comparePlansWithBringUps } from '../support/plan-agrees-with-up.ts';

describe('plan and up', () => {
  it.each([
    ['random', arbitraryMachine, 6000],
    ['odd', arbitraryOddMachine, 4000],
  ])('agree on thousands of %s machines', async (_, machines, numRuns) => {
    const outcomes = await comparePlansWithBringUps(machines, numRuns);
    expect([...outcomes.values()].reduce((sum, count) => sum + count, 0)).toBe(numRuns);
  });
});
