/** Whatever is forgotten on the way of a page, races give it away. */
import { describe, expect, it } from 'vitest';
import { findMutation } from './find-mutation.ts';
import { MUTATIONS } from './mutations.ts';

const SEED = 5;

describe('a host that forgets something', () => {
  it.each(MUTATIONS)('is found out: $name', async (mutation) => {
    const found = await findMutation(mutation, SEED);
    expect(found?.message).toMatch(mutation.noticedBy);
  });
});
