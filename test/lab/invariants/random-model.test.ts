import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { randomCommands } from '../../support/random-model/commands.ts';
import { FAULTS } from '../../support/random-model/faults.ts';
import { play, runRandomCalls } from '../../support/random-model/run-random-calls.ts';

const TIMEOUT_MS = 300_000;
const COMMANDS = 500;

describe('random calls and guests keep every invariant', () => {
  it(
    'over 100,000 calls, everything compared every 4; each leaf succeeds, and ways to fail are met',
    () => {
      const fixed = runRandomCalls({
        dynamicPamt: false,
        checkStateEvery: 16,
        runs: 200,
        commands: COMMANDS,
      });
      const dynamic = runRandomCalls({
        dynamicPamt: true,
        checkStateEvery: 16,
        runs: 170,
        commands: COMMANDS,
      });
      const calls = fixed.calls + dynamic.calls;
      process.stdout.write(`random model: ${calls} calls and guest steps\n`);
      expect(calls).toBeGreaterThan(100_000);
      expect(MUST_REACH.filter((what) => !fixed.reached.has(what) && !dynamic.reached.has(what))).toEqual([]);
    },
    TIMEOUT_MS,
  );

  it(
    'with everything compared after every call',
    () => {
      for (const dynamicPamt of [false, true]) {
        const { calls } = runRandomCalls({ dynamicPamt, checkStateEvery: 1, runs: 20, commands: COMMANDS });
        expect(calls).toBeGreaterThan(1000);
      }
    },
    TIMEOUT_MS,
  );
});

describe('a run that fails', () => {
  it('tells its seed and the few calls that are needed', () => {
    const { sabotage } = FAULTS.find(({ invariant }) => invariant === 'keyIdIsReusedOnlyAfterWriteBack')!;
    const property = fc.property(randomCommands(COMMANDS), (commands) => {
      play({ dynamicPamt: false, checkStateEvery: 1, sabotage }, commands);
    });
    const details = fc.check(property);
    expect(fc.defaultReportMessage(details)).toMatch(/seed: -?\d+, path: "[0-9:]+"/);
    const { message } = details.errorInstance as Error;
    expect(message).toMatch(/InvariantError: \w+: KeyID/);
    const calls = message.split('\n').filter((line) => line.includes(' TDH.'));
    expect(calls.at(-1)).toContain('TDH.MNG.KEY.FREEID(rcx=');
    // Create, VPFLUSHDONE, FREEID and little else; a run before shrinking has hundreds.
    expect(calls.length).toBeLessThan(60);
  });
});

const MUST_REACH: readonly string[] = [
  ...[
    'MNG.CREATE',
    'MNG.KEY.CONFIG',
    'MNG.ADDCX',
    'MNG.INIT',
    'MNG.VPFLUSHDONE',
    'MNG.KEY.FREEID',
    'PHYMEM.CACHE.WB',
    'PHYMEM.PAGE.RECLAIM',
    'PHYMEM.PAGE.RDMD',
    'PHYMEM.PAMT.ADD',
    'PHYMEM.PAMT.REMOVE',
    'VP.CREATE',
    'VP.ADDCX',
    'VP.INIT',
    'VP.FLUSH',
    'VP.ENTER',
    'MR.FINALIZE',
    'MR.EXTEND',
    'MNG.RD',
    'VP.RD',
    'VP.WR',
    'MEM.SEPT.ADD',
    'MEM.SEPT.ADD.v1',
    'MEM.SEPT.REMOVE',
    'MEM.SEPT.RD',
    'MEM.PAGE.ADD',
    'MEM.PAGE.AUG',
    'MEM.PAGE.REMOVE',
    'MEM.PAGE.RELOCATE',
    'MEM.PAGE.DEMOTE',
    'MEM.PAGE.PROMOTE',
    'MEM.PAGE.PROMOTE.v1',
    'MEM.RANGE.BLOCK',
    'MEM.RANGE.UNBLOCK',
    'MEM.TRACK',
    'MEM.RD',
    'MEM.WR',
  ].map((leaf) => `TDH.${leaf}`),
  'TDH.MEM.PAGE.REMOVE TDX_TLB_TRACKING_NOT_DONE',
  'TDH.MEM.TRACK TDX_PREVIOUS_TLB_EPOCH_BUSY',
  'TDH.MNG.CREATE TDX_HKID_NOT_FREE',
  'TDH.MNG.KEY.FREEID TDX_WBCACHE_NOT_COMPLETE',
  'TDH.MNG.VPFLUSHDONE TDX_FLUSHVP_NOT_DONE',
  'TDH.PHYMEM.CACHE.WB TDX_INTERRUPTED_RESUMABLE',
  'TDH.PHYMEM.PAGE.RECLAIM TDX_TD_ASSOCIATED_PAGES_EXIST',
  'TDH.VP.ENTER TDX_VCPU_ASSOCIATED',
  'TDH.VP.ENTER TDX_TD_FATAL',
  'TDH.MEM.PAGE.DEMOTE TDX_INTERRUPTED_RESTARTABLE',
  'guest ACCEPT resumed',
  'guest ATTR.WR resumed',
  'guest VMCALL exited',
  'guest triple exited',
];
