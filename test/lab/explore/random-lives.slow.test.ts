import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { exploreScenario } from '../../../src/lab/explore/seeds/explore-scenario.ts';
import { POLICY_SETS } from '../../../src/lab/scenario/policy-sets.ts';
import { smallLivesText } from './small-lives.ts';

const LIVES = 20_000;
const EACH = Math.ceil(LIVES / POLICY_SETS.length);

/** SEAMCALLs, allocations and callbacks that fail in some of the lives. */
const FAULTS = `
faults:
  - { seamcall: TDH.MEM.PAGE.AUG, status: TDX_OPERAND_BUSY, probability: 0.0005 }
  - { seamcall: TDH.MEM.SEPT.ADD, probability: 0.01 }
  - { allocation: td-control, probability: 0.002 }
  - { callback: memory-online, probability: 0.1 }`;

const folder = mkdtempSync(join(tmpdir(), 'tdxlab-lives-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('20,000 random lives', () => {
  it.each(POLICY_SETS.map((set, i) => [set.name, i] as const))(
    'break no invariant under %s',
    async (name, i) => {
      const file = join(folder, `${i}.yaml`);
      // Every other policy set with faults.
      writeFileSync(file, smallLivesText(name, i % 2 === 0 ? FAULTS : ''));
      const options = { seeds: EACH, firstSeed: 1 + i * EACH, workers: availableParallelism() };
      expect(await exploreScenario(file, options)).toMatchObject({ found: null, seeds: EACH });
    },
  );
});
