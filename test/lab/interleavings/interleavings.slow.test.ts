/** Tens of thousands of races, and the smallest programs in every order with few delays. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { exploreAll } from '../../../src/lab/schedule/explore.ts';
import { anyProgram } from './program.ts';
import { RaceTrack } from './race-track.ts';
import { SUBJECTS, type Subject } from './subjects.ts';
import { TINY_PROGRAMS } from './tiny-programs.ts';

const PROGRAMS = 800;
const LARGE_PROGRAMS = 60;
const SEEDS = 4;
/** Turns in which a task goes on before one that waits longer. */
const DELAYS = 5;

const subjects: readonly Subject[] = Object.values(SUBJECTS);

describe.each(subjects)('races of $name', (subject) => {
  const isLarge = subject.pages > 100;

  it('keep every invariant in random orders of random programs', async () => {
    const track = new RaceTrack(subject);
    const race = fc.asyncProperty(anyProgram, fc.bigInt({ min: 1n, max: 2n ** 32n }), (program, seed) =>
      track.explore(program, SEEDS, seed),
    );
    const numRuns = isLarge ? LARGE_PROGRAMS : PROGRAMS;
    await fc.assert(race, { numRuns });
    expect(track.tally.schedules).toBe(numRuns * SEEDS);
    expect(track.tally.orders.size).toBeGreaterThan(numRuns * SEEDS * 0.9);
  });

  it.each(isLarge ? [] : Object.entries(TINY_PROGRAMS))(
    'keep them in every order with five delays: %s',
    async (_name, program) => {
      const track = new RaceTrack(subject);
      const { complete } = await exploreAll((scheduler) => track.run(scheduler, program), undefined, DELAYS);
      expect(complete).toBe(true);
    },
  );
});
