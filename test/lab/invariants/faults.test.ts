import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CALL_INVARIANTS } from '../../../src/lab/invariants/call-invariants.ts';
import { InvariantError } from '../../../src/lab/invariants/model-checker.ts';
import { STATE_INVARIANTS } from '../../../src/lab/invariants/state-invariants.ts';
import { randomCommands } from '../../support/random-model/commands.ts';
import { FAULTS, type Fault } from '../../support/random-model/faults.ts';
import { play } from '../../support/random-model/run-random-calls.ts';

const COMMANDS = 300;
const RUNS = 300;

/** Every invariant that the random runs of a module with `fault` break, up to the first that is the fault's own. */
function brokenBy({ sabotage, dynamicPamt = false, invariant }: Fault): ReadonlySet<string> {
  const broken = new Set<string>();
  // An invariant of single calls is checked after each of them anyway.
  const checkStateEvery = CALL_INVARIANTS.some(({ name }) => name === invariant) ? 64 : 1;
  const { errorInstance } = fc.check(
    fc.property(randomCommands(COMMANDS), (commands) => {
      try {
        play({ dynamicPamt, checkStateEvery, sabotage }, commands);
      } catch (error) {
        const { cause } = error as Error;
        if (!(cause instanceof InvariantError)) throw error;
        for (const breach of cause.breaches) broken.add(breach.invariant);
      }
      return !broken.has(invariant);
    }),
    { numRuns: RUNS, endOnFailure: true },
  );
  if (errorInstance instanceof Error && broken.size === 0) throw errorInstance;
  return broken;
}

describe('the invariants find a module that', () => {
  for (const fault of FAULTS) {
    it(fault.what, () => {
      expect(brokenBy(fault)).toContain(fault.invariant);
    });
  }
});

describe('the faults', () => {
  it('put every invariant to the test', () => {
    const tested = new Set(FAULTS.map(({ invariant }) => invariant));
    const all = [...CALL_INVARIANTS, ...STATE_INVARIANTS].map(({ name }) => name);
    expect(all.filter((name) => !tested.has(name))).toEqual([]);
  });
});
