import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { replayVectors } from '../../src/lab/replay/replay.ts';
import { recordScenario, SCENARIOS } from '../support/scenarios/scenarios.ts';

const textOf = (name: string): string =>
  gunzipSync(readFileSync(join(import.meta.dirname, `${name}.jsonl.gz`))).toString();

describe.each(Object.keys(SCENARIOS))('the sequence %s', (name) => {
  it('agrees in every register', () => {
    const { calls, guestEvents, expects, mismatches } = replayVectors(textOf(name));
    compared.sequences++;
    compared.calls += calls;
    compared.guestEvents += guestEvents;
    compared.expects += expects;
    expect(mismatches).toEqual([]);
    expect(calls).toBeGreaterThan(50);
  });

  it('is what its scenario records', () => {
    expect(recordScenario(name)).toBe(textOf(name));
  });
});

const compared = { sequences: 0, calls: 0, guestEvents: 0, expects: 0 };

afterAll(() => {
  const { sequences, calls, guestEvents, expects } = compared;
  console.log(
    `${calls} calls, ${guestEvents} guest events and ${expects} memory contents in ${sequences} sequences of our own compared`,
  );
});
