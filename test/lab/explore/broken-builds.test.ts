import { describe, expect, it } from 'vitest';
import { firstFailure } from '../../../src/lab/explore/seeds/failure.ts';
import { shrinkFailure } from '../../../src/lab/explore/seeds/shrink-failure.ts';
import { POLICY_SET_NAMES } from '../../../src/lab/scenario/policy-sets.ts';
import { BROKEN_BUILDS, type BrokenBuild } from './broken-builds.ts';
import { smallLives } from './small-lives.ts';

/** Policies that promise nothing to TDs: what is argued for them is what the host may do. */
const PROMISE_NOTHING = ['allow+trust', 'separate-node+trust'];

function optionsOf({ policy, prepare, boots }: BrokenBuild) {
  return {
    ...(prepare === undefined ? {} : { prepare }),
    ...(boots === undefined ? {} : { policy: { name: policy, title: 'broken', knobs: boots } }),
  };
}

describe('broken builds', () => {
  it('are there for every policy set that promises something', () => {
    const broken = new Set(BROKEN_BUILDS.map(({ policy }) => policy));
    expect(POLICY_SET_NAMES.filter((name) => !broken.has(name))).toEqual(PROMISE_NOTHING);
  });

  it.each(BROKEN_BUILDS.map((build) => [`${build.policy}: ${build.what}`, build] as const))(
    'are caught within 2,000 seeds, and made short: %s',
    async (_, build) => {
      const scenario = await smallLives(build.policy, build.more, build.without);
      expect(await firstFailure(scenario, { firstSeed: 1, seeds: 5 })).toBeNull();
      const found = await firstFailure(scenario, { firstSeed: 1, seeds: 2000 }, optionsOf(build));
      expect(build.shows ?? [found?.failure.name]).toContain(found?.failure.name);
      expect(found?.failure.kind).toBe(build.shows === undefined ? 'expectation' : 'invariant');
      const short = await shrinkFailure(scenario, found!.seed, found!.failure, optionsOf(build));
      if (build.shows !== undefined) expect(short.events.length).toBeLessThanOrEqual(12);
    },
  );
});
