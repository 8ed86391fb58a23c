import { existsSync, readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { replayFiles } from '../../src/lab/replay/replay.ts';

const DIRECTORY = '../shared/vectors/1.5.25';
const found = existsSync(DIRECTORY) ? readdirSync(DIRECTORY).filter((name) => name.includes('.jsonl')) : [];
/** Sequences that agree in everything: the system leaves, and TDs from their creation to their end. */
const EXACT =
  /^(sysinit|sysconfig|sysmeta|shutdown|pkgs|dpamt|fuzz|create|build|mngfields|vcpu|vpfields|cpuid|msr|vmexit|epf|teardown)_/;
/** Leaves that must not differ in any sequence, whatever TD leaves around them do. */
const SYSTEM_LEAF =
  /^TDH\.(SYS\.(INIT|LP\.INIT|INFO|RD|RDALL|CONFIG|KEY\.CONFIG|TDMR\.INIT|LP\.SHUTDOWN|UPDATE)|PHYMEM\.PAMT\.ADD):/;

if (found.length === 0) console.log(`no recorded vectors at ${DIRECTORY}: replay tests skipped`);

describe.skipIf(found.length === 0)('recorded vectors of release 1.5.25', () => {
  it.each(found.filter((name) => EXACT.test(name)))('%s agrees in every register', async (name) => {
    const [sequence] = await replayFiles([`${DIRECTORY}/${name}`]);
    const { calls, guestEvents, expects, mismatches } = sequence!;
    console.log(
      `${name}: ${calls} calls, ${guestEvents} guest events and ${expects} memory contents compared`,
    );
    expect(mismatches).toEqual([]);
    expect(calls).toBeGreaterThan(100);
  });

  it('every system leaf agrees in every sequence', async () => {
    const sequences = await replayFiles(found.map((name) => `${DIRECTORY}/${name}`));
    const calls = sequences.reduce((sum, sequence) => sum + sequence.calls, 0);
    console.log(`${sequences.length} sequences, ${calls} calls replayed`);
    const differing = sequences.flatMap(({ name, mismatches }) =>
      mismatches.filter(({ what }) => SYSTEM_LEAF.test(what)).map((mismatch) => ({ name, ...mismatch })),
    );
    expect(differing).toEqual([]);
  });
});
