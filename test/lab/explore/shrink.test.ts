import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { shrink } from '../../../src/lab/explore/seeds/shrink.ts';

describe('shrink', () => {
  it('leaves what is needed, in its order, and nothing else', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 200 }),
        fc.array(fc.nat(), { minLength: 1, maxLength: 5 }),
        async (length, picks) => {
          const items = Array.from({ length }, (_, i) => i);
          const needed = new Set(picks.map((pick) => pick % length));
          const fails = async (part: readonly number[]): Promise<boolean> =>
            [...needed].every((one) => part.includes(one));
          expect(await shrink(items, fails)).toEqual([...needed].sort((a, b) => a - b));
        },
      ),
    );
  });

  it('leaves nothing where nothing is needed, and all where all is', async () => {
    expect(await shrink([1, 2, 3], async () => true)).toEqual([]);
    expect(await shrink([1, 2, 3], async (part) => part.length === 3)).toEqual([1, 2, 3]);
  });
});
