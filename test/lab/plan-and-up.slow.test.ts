import { describe, expect, it } from 'vitest';
import { comparePlansWithBringUps } from '../support/plan-agrees-with-up.ts';

describe('plan and up', () => {
  it('agree on thousands of random machines', async () => {
    const outcomes = await comparePlansWithBringUps(6000);
    expect([...outcomes.values()].reduce((sum, count) => sum + count, 0)).toBe(6000);
  });
});
