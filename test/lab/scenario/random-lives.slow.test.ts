import { describe, expect, it } from 'vitest';
import { POLICY_SETS } from '../../../src/lab/scenario/policy-sets.ts';
import { brokenIn, busyHost } from './busy-host.ts';

/** Lives under each of the policies. */
const LIVES = 200;
const EVENTS = 60;
/** A fresh one in the slow suite; a failing life prints its own. */
const FIRST_SEED = Number(process.env.TDXLAB_SEED ?? Date.now() % 0x7fff_ffff);
const TIMEOUT_MS = 3_600_000;

describe('many random lives', () => {
  it.each(POLICY_SETS)(
    'break no invariant under $name',
    async (policy) => {
      const scenario = await busyHost(EVENTS);
      for (let seed = 0; seed < LIVES; seed++)
        expect(await brokenIn(scenario, policy, FIRST_SEED + seed)).toEqual([]);
    },
    TIMEOUT_MS,
  );
});
