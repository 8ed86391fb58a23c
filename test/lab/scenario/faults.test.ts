import { describe, expect, it } from 'vitest';
import { runScenario, type ScenarioRun } from '../../../src/lab/scenario/engine/run-scenario.ts';
import { parseScenario } from '../../../src/lab/scenario/language/parse-scenario.ts';

const HEAD = `name: faulty
title: what fails on purpose
host:
  nodes: [{ memory: 4GiB, cpus: 2 }]
  areas:
    dimm: { at: 0x140000000, size: 128MiB, state: part }
`;
const EVENTS = `events:
  - { at: 1s, do: td-start, name: a, memory: 4MiB }
  - { at: 2s, do: td-grow, name: grow, td: a, size: 2MiB }
  - { at: 3s, do: offline, name: off, memory: dimm }
  - { at: 4s, do: online, name: on, memory: dimm }
  - { at: 5s, do: td-stop, name: stop, td: a }
  - { at: 6s, do: td-start, name: b, memory: 4MiB }
`;

async function life(faults: string, policy = 'linux-7.2'): Promise<ScenarioRun> {
  const scenario = await parseScenario(
    `${HEAD}policy: ${policy}\nfaults:\n  - ${faults}\n${EVENTS}`,
    'f.yaml',
  );
  const run = await runScenario(scenario, { auditEvery: 1 });
  expect(run.violations).toEqual([]);
  return run;
}

const of = ({ outcomes }: ScenarioRun, event: string) => {
  const own = outcomes.find((outcome) => outcome.event === event)!;
  return [own.result, own.reason?.code ?? null];
};

describe('faults of a scenario', () => {
  it('a SEAMCALL that fails while a TD is built refuses its start, and leaves nothing behind', async () => {
    const run = await life('{ seamcall: TDH.MNG.INIT, nth: 1, status: TDX_OPERAND_BUSY }');
    expect(of(run, 'a')).toEqual(['refused', 'seamcall-failed']);
    expect(of(run, 'b')).toEqual(['done', null]);
  });

  it('a SEAMCALL that fails for a living TD does what onError says', async () => {
    const third = '{ seamcall: TDH.MEM.PAGE.AUG, nth: 3, status: TDX_OPERAND_BUSY }';
    expect(of(await life(third), 'grow')).toEqual(['killed', 'seamcall-failed']);
    expect(of(await life(third, 'allow+check'), 'grow')).toEqual(['refused', 'seamcall-failed']);
    const shutDown = await life(third, '2022-series');
    expect(of(shutDown, 'grow')).toEqual(['killed', 'seamcall-failed']);
    expect(of(shutDown, 'b')).toEqual(['refused', 'tdx-not-initialized']);
  });

  it('a KeyID that the module keeps is leaked with the pages of its TD, and accounted for', async () => {
    const run = await life('{ seamcall: TDH.MNG.KEY.FREEID, nth: 1, status: TDX_OPERAND_BUSY }');
    expect(of(run, 'stop')).toEqual(['done', null]);
    expect(of(run, 'b')).toEqual(['done', null]);
  });

  it('an allocation by its purpose, and a callback of memory that goes online', async () => {
    expect(of(await life('{ allocation: td-sept, nth: 1 }'), 'a')).toEqual(['refused', 'no-page']);
    expect(of(await life('{ callback: memory-online, nth: 1 }'), 'on')).toEqual([
      'refused',
      'callback-failed',
    ]);
  });

  it('every call fails with probability 1, none with 0', async () => {
    const all = await life('{ seamcall: any, probability: 1 }');
    expect(all.measures.refused).toEqual({ 'seamcall-failed': 2 });
    const none = await life('{ seamcall: any, probability: 0 }');
    expect(none.outcomes.every(({ result }) => result === 'done')).toBe(true);
  });
});
