import { expect, it } from 'vitest';
import { runRandomCalls } from '../../support/random-model/run-random-calls.ts';

const TIMEOUT_MS = 3_600_000;

for (const dynamicPamt of [false, true]) {
  it(
    `keeps every invariant over a million and a half random calls, ${dynamicPamt ? 'dynamic' : 'static'} PAMT`,
    () => {
      const { calls } = runRandomCalls({ dynamicPamt, checkStateEvery: 64, runs: 3500, commands: 1000 });
      process.stdout.write(`random model: ${calls} calls and guest steps\n`);
      expect(calls).toBeGreaterThan(1_500_000);
    },
    TIMEOUT_MS,
  );
}
