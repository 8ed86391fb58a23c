/** Looks for the race that gives a mutation away. */
import fc from 'fast-check';
import type { Mutation } from './mutations.ts';
import { anyProgram } from './program.ts';
import { RaceTrack } from './race-track.ts';

/** Races it may take. */
export const MOST_RACES = 2000;

/** What the first race that breaks says, and how many it took; null where none of `MOST_RACES` does. */
export async function findMutation(
  { subject, sabotage, program }: Mutation,
  programSeed: number,
): Promise<{ readonly races: number; readonly message: string } | null> {
  const track = new RaceTrack(subject, sabotage);
  const arbitrary = program === undefined ? anyProgram : fc.constant(program);
  const programs = fc.sample(arbitrary, { numRuns: MOST_RACES, seed: programSeed });
  for (const [i, each] of programs.entries()) {
    try {
      await track.explore(each, 1, BigInt(i + 1));
    } catch (error) {
      return { races: i + 1, message: (error as Error).message };
    }
  }
  return null;
}
