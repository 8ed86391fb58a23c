/** Whatever is forgotten on the way of a page, races give it away: with programs that are new each time. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { findMutation } from './find-mutation.ts';
import { MUTATIONS } from './mutations.ts';

const SEED = fc.readConfigureGlobal().seed ?? 1;

describe('a host that forgets something', () => {
  it.each(MUTATIONS)('is found out: $name', async (mutation) => {
    const found = await findMutation(mutation, SEED);
    // What notices it first is for the normal suite, which knows its programs.
    expect(found).not.toBeNull();
  });
});
