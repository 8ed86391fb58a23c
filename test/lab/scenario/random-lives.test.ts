import { describe, expect, it } from 'vitest';
import { POLICY_SETS } from '../../../src/lab/scenario/policy-sets.ts';
import { brokenIn, busyHost } from './busy-host.ts';

const SEEDS = [1, 2];
const EVENTS = 120;

describe('random lives', () => {
  it.each(POLICY_SETS)('break no invariant under $name', async (policy) => {
    const scenario = await busyHost(EVENTS);
    for (const seed of SEEDS) expect(await brokenIn(scenario, policy, seed)).toEqual([]);
  });
});
