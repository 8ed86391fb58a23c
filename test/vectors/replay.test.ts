import { existsSync, readdirSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { replayFiles } from '../../src/lab/replay/replay.ts';

const DIRECTORY = '../shared/vectors/1.5.25';
const found = existsSync(DIRECTORY) ? readdirSync(DIRECTORY).filter((name) => name.includes('.jsonl')) : [];

if (found.length === 0) console.log(`no recorded vectors at ${DIRECTORY}: replay tests skipped`);

describe.skipIf(found.length === 0)('recorded vectors of release 1.5.25', () => {
  const compared = { sequences: 0, calls: 0, guestEvents: 0, expects: 0 };

  it.each(found)('%s agrees in every register', async (name) => {
    const [sequence] = await replayFiles([`${DIRECTORY}/${name}`]);
    const { calls, guestEvents, expects, mismatches } = sequence!;
    compared.sequences++;
    compared.calls += calls;
    compared.guestEvents += guestEvents;
    compared.expects += expects;
    expect(mismatches).toEqual([]);
    expect(calls).toBeGreaterThan(100);
  });

  afterAll(() => {
    const { sequences, calls, guestEvents, expects } = compared;
    console.log(
      `${calls} calls, ${guestEvents} guest events and ${expects} memory contents in ${sequences} sequences compared`,
    );
  });
});
