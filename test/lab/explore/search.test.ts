import { describe, expect, it } from 'vitest';
import { AbstractHost } from '../../../src/lab/explore/abstract/abstract-host.ts';
import { abstractConfig } from '../../../src/lab/explore/abstract/from-scenario.ts';
import { exploreInterleavings } from '../../../src/lab/explore/exhaustive/explore-interleavings.ts';
import { searchAll } from '../../../src/lab/explore/exhaustive/search.ts';
import { StateSet } from '../../../src/lab/explore/exhaustive/state-set.ts';
import { parseScenario } from '../../../src/lab/scenario/language/parse-scenario.ts';
import { policySet } from '../../../src/lab/scenario/policy-sets.ts';
import { smallRace } from './small-race.ts';

describe('searchAll', () => {
  it.each(
    ['linux-7.2', 'first-user', 'allow+check', 'separate-node', 'opt-in'].map(
      (name) => [name, policySet(name)!] as const,
    ),
  )('finds nothing broken under %s', async (_, policy) => {
    const found = exploreInterleavings(await smallRace(), { policy });
    expect(found).toMatchObject({ broken: null, complete: true });
    expect(found.states).toBeGreaterThan(policy.name === 'opt-in' ? 20 : 500);
  });

  it('counts what a calculation by hand gives', async () => {
    const scenario = await parseScenario(
      `
name: two
title: two programs that take memory
host: { nodes: [{ memory: 2304MiB }] }
events:
  - { at: 1s, do: host-alloc, name: x, size: 4MiB }
  - { at: 1s, do: host-alloc, name: y, size: 4MiB }
`,
      'two.yaml',
    );
    // Each task has 3 steps: see what is free, allocate, find that it is enough. 4 x 4 states, 2 x 3 x 4 transitions.
    expect(exploreInterleavings(scenario)).toMatchObject({ states: 16, transitions: 24, depth: 6, ends: 1 });
  });

  it.each([
    ['linux-7.2', 'notifier', 'allocator-is-tdx'],
    ['first-user', 'lock', 'allocator-is-tdx'],
    ['winner-takes-all', 'winner-takes-all', 'first-wins'],
    ['allow+check', 'check', 'only-tdmr-pages'],
    ['allow+constrain', 'constrain', 'only-tdmr-pages'],
    ['allow+retry', 'retry', 'only-tdmr-pages'],
    ['separate-zone', 'separate-zone', 'apart-stays-apart'],
  ])('finds the shortest way to what %s breaks without its %s', async (name, broken, invariant) => {
    const policy = policySet(name)!;
    const knobs =
      name === 'separate-zone' ? { ...policy.knobs, tdAllocation: 'trust' as const } : policy.knobs;
    const host = new AbstractHost(abstractConfig({ ...(await smallRace()), policy: { ...policy, knobs } }));
    host.broken = broken;
    const found = searchAll(host);
    expect(found.broken?.invariant).toBe(invariant);
    const before = searchAll(host, { depth: found.broken!.path.length - 1 });
    expect(before.broken).toBeNull();
  });

  it('gives the same result again, and stops at a depth', async () => {
    const scenario = await smallRace();
    expect(exploreInterleavings(scenario)).toEqual(exploreInterleavings(scenario));
    expect(exploreInterleavings(scenario, { depth: 5 })).toMatchObject({ depth: 5, complete: false });
  });

  it('refuses events that it has no steps for, and those that may mean several TDs', async () => {
    const compact = await smallRace('  - { at: 4s, do: compact }');
    expect(() => exploreInterleavings(compact)).toThrow(/^compact: an exhaustive search has no steps/);
    const any = await smallRace('  - { at: 4s, do: td-stop, td: any }');
    expect(() => exploreInterleavings(any)).toThrow(/needs events that name one TD/);
  });
});

describe('StateSet', () => {
  it('knows each state once, by every number of it', () => {
    const set = new StateSet(3);
    const states = Array.from({ length: 20_000 }, (_, i) => Int32Array.of(i % 100, Math.floor(i / 100), -i));
    states.forEach((state, i) => {
      expect(set.add(state)).toBe(i);
    });
    for (const state of states) expect(set.add(state)).toBe(-1);
    const read = new Int32Array(3);
    set.read(12_345, read);
    expect(read).toEqual(states[12_345]);
  });
});
