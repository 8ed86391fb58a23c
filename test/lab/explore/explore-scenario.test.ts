import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../../src/cli/verbs/explore.ts';
import { exploreScenario } from '../../../src/lab/explore/seeds/explore-scenario.ts';
import { findFailure, firstFailure } from '../../../src/lab/explore/seeds/failure.ts';
import { replayFile } from '../../../src/lab/explore/seeds/scenario-file.ts';
import { shrinkFailure } from '../../../src/lab/explore/seeds/shrink-failure.ts';
import { parseScenario } from '../../../src/lab/scenario/language/parse-scenario.ts';
import { captureIo } from '../../support/capture-io.ts';
import { BROKEN_BUILDS } from './broken-builds.ts';
import { smallLives, smallLivesText } from './small-lives.ts';

/** Does not hold for every seed: a program takes all memory, and a TD begins. */
const EXPECTS = 'expect: [{ count: refused, of: td-start, reason: no-page, exactly: 0 }]';

let folder = '';
let file = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tdxlab-explore-'));
  file = join(folder, 'lives.yaml');
  writeFileSync(file, smallLivesText('linux-7.2', EXPECTS));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('exploreScenario', () => {
  it('finds the lowest seed that fails, the same whatever the number of workers', async () => {
    const options = { seeds: 200, firstSeed: 1 };
    const one = await exploreScenario(file, { ...options, workers: 1 });
    const three = await exploreScenario(file, { ...options, workers: 3 });
    expect(three).toEqual(one);
    const alone = await firstFailure(await smallLives('linux-7.2', EXPECTS), options);
    expect(one.found?.seed).toBe(alone?.seed);
    expect(one.seeds).toBe(alone?.seed);
  });

  it('finds nothing where nothing is', async () => {
    const policy = { name: 'opt-in', title: 'off', knobs: { enable: 'opt-in' as const } };
    const result = await exploreScenario(file, { seeds: 40, firstSeed: 7, workers: 2, policy });
    expect(result).toMatchObject({ seeds: 40, firstSeed: 7, found: null });
  });
});

describe('replayFile', () => {
  it('gives a scenario that fails in the same way, whatever was broken', async () => {
    for (const { policy, prepare, shows } of BROKEN_BUILDS.filter((build) => build.shows !== undefined).slice(
      0,
      6,
    )) {
      const scenario = await smallLives(policy);
      const options = { prepare: prepare! };
      const found = await firstFailure(scenario, { firstSeed: 1, seeds: 500 }, options);
      const short = await shrinkFailure(scenario, found!.seed, found!.failure, options);
      const text = replayFile({ text: smallLivesText(policy), file: 'small-lives.yaml' }, short, '.');
      const again = await parseScenario(text, 'again.yaml');
      expect(again.arrivals).toEqual([]);
      expect(again.events).toHaveLength(short.events.length);
      const repeated = await findFailure(again, again.seed, options);
      expect(shows).toContain(repeated?.name);
      expect(told(repeated?.text)).toBe(told(short.failure.text));
    }
  });
});

/** Events that are no longer drawn at random are not numbered. */
function told(text = ''): string {
  return text.replace(/^[^:]*: /, '');
}

describe('tdxlab explore', () => {
  it('prints what it found as a scenario that fails, and writes it', async () => {
    const out = join(folder, 'found.yaml');
    const io = captureIo();
    expect(await run([file], { seeds: '100', workers: '2', out }, io)).toBe(1);
    expect(io.lines.join('\n')).toContain(`Repeat it: tdxlab run ${out}`);
    const found = await parseScenario(readFileSync(out, 'utf8'), out);
    expect(await findFailure(found, found.seed)).toMatchObject({ kind: 'expectation' });
  });

  it('ends with 0 where all holds, in both modes', async () => {
    expect(await run(['kmem-hot-add'], { seeds: '2', workers: '1' }, captureIo())).toBe(0);
    const io = captureIo();
    expect(await run(['kmem-hot-add'], { exhaustive: true, json: true }, io)).toBe(0);
    expect(JSON.parse(io.lines.join('\n'))).toMatchObject({ complete: true, broken: null });
  });

  it.each([
    [{ seeds: '0' }, /--seeds takes a whole number/],
    [{ workers: 'x' }, /--workers takes a whole number/],
    [{ exhaustive: true, firstSeed: '1' }, /takes no --first-seed/],
    [{ depth: '3' }, /--depth is for --exhaustive/],
    [{ policy: ['no-such'] }, /no policy set 'no-such'/],
  ])('refuses %j', async (options, text) => {
    await expect(run(['kmem-hot-add'], options, captureIo())).rejects.toThrow(text);
  });
});
