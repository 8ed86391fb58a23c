import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GIB, MIB } from '../../../src/abi/address.ts';
import { InputError } from '../../../src/abi/input-error.ts';
import { parseScenario } from '../../../src/lab/scenario/language/parse-scenario.ts';

const TEXT = `name: sample
title: a sample
host:
  nodes: [{ memory: 8GiB, cpus: 2 }]
  areas:
    cxl0: { size: 2GiB, kind: cxl }
policy: { hotplug: allow, tdAllocation: check }
events:
  - { at: 0s, do: td-start, name: a, memory: 64MiB, stay: { poisson: 1h } }
  - { at: 1h30m, do: kmem-bind, memory: cxl0, name: bind }
arrivals:
  - every: { uniform: [1m, 5m] }
    most: 3
    choose: [{ do: td-grow, td: any, size: 2MiB }]
faults:
  - { seamcall: TDH.MEM.PAGE.AUG, nth: 3, status: TDX_OPERAND_BUSY }
expect:
  - { event: bind, is: done, under: [scenario] }
`;

async function complaint(text: string): Promise<string> {
  try {
    await parseScenario(text, 's.yaml');
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as InputError).message;
  }
  return 'nothing';
}

describe('parseScenario', () => {
  it('reads times, sizes, hosts with areas, policies and faults', async () => {
    const scenario = await parseScenario(TEXT, 's.yaml');
    expect(scenario.policy).toMatchObject({
      name: 'scenario',
      knobs: { hotplug: 'allow', tdAllocation: 'check' },
    });
    expect(scenario.events.map(({ at }) => at)).toEqual([0, 5400e9]);
    expect(scenario.events[0]).toMatchObject({ memory: 64 * MIB, vcpus: 1 });
    const cxl0 = scenario.areas.get('cxl0')!;
    expect(cxl0).toMatchObject({ kind: 'cxl', state: 'present', node: 0 });
    expect(cxl0.end - cxl0.start).toBe(2 * GIB);
    expect(scenario.machine.e820.at(-1)).toEqual({ start: cxl0.start, end: cxl0.end, type: 'soft-reserved' });
    expect(scenario.expect[0]!.line).toBe(18);
  });

  const WRONG: readonly (readonly [from: string, to: string, message: RegExp])[] = [
    ['64MiB', '64MB', /^s\.yaml:9:\d+: events\[0\]\.memory: must be a size such as 4KiB, .* not "64MB"$/],
    ['1h30m', '30m1h', /^s\.yaml:10:\d+: events\[1\]\.at: must be a time such as/],
    [
      'do: td-start',
      'do: td-begin',
      /^s\.yaml:9:\d+: events\[0\]\.do: cannot be "td-begin": it must be td-start,/,
    ],
    ['do: td-start, ', '', /^s\.yaml:9:\d+: events\[0\]\.do: is missing/],
    ['at: 0s, ', '', /^s\.yaml:9:\d+: events\[0\]\.at: is missing/],
    [
      'memory: cxl0',
      'memory: cxl9',
      /^s\.yaml:10:\d+: events\[1\]\.memory: there is no area 'cxl9'; known are cxl0$/,
    ],
    ['title:', 'titel:', /^s\.yaml:2:1: titel: is no key here$/],
    ['title: a sample\n', '', /^s\.yaml:1:1: title: is missing$/],
    ['hotplug: allow', 'hotplug: alow', /^s\.yaml:7:\d+: policy\.hotplug: hotplug takes reject-non-tdx, /],
    ['hotplug: allow', 'hot-plug: allow', /^s\.yaml:7:\d+: policy\.hot-plug: is no knob; known are enable,/],
    ['kind: cxl', 'kind: flash', /^s\.yaml:6:\d+: host\.areas\.cxl0\.kind: must be ram, legacy-pmem,/],
    [
      'is: done',
      'is: dead',
      /^s\.yaml:18:\d+: expect\[0\]\.is: must be done, refused, killed or failed, not "dead"$/,
    ],
    ['event: bind', 'event: bond', /^s\.yaml:18:\d+: expect\[0\]\.event: there is no event 'bond'$/],
    ['[scenario]', '[nobody]', /^s\.yaml:18:\d+: expect\[0\]\.under\[0\]: there is no policy set 'nobody'/],
    ['[1m, 5m]', '[5m, 1m]', /^s\.yaml:12:\d+: arrivals\[0\]\.every: has its first bound above the second/],
    ['TDH.MEM.PAGE.AUG', 'TDH.NOWHERE', /^s\.yaml:16:\d+: faults\[0\]\.seamcall: 'TDH.NOWHERE' is no leaf/],
    ['TDX_OPERAND_BUSY', 'TDX_BUSY', /^s\.yaml:16:\d+: faults\[0\]\.status: 'TDX_BUSY' is no status/],
    [', nth: 3', '', /^s\.yaml:16:\d+: faults\[0\]: must have either nth or probability/],
    ['name: a,', 'name: a, name: b,', /^s\.yaml:9:\d+: is not YAML: Map keys must be unique$/],
    ['name: sample', 'name: *x', /^s\.yaml:1:7: the alias \*x is not allowed here/],
    ['memory: 8GiB', 'memory: 1GiB', /^s\.yaml:4:\d+: host\.nodes\[0\]\.memory: must be more than the 2GiB/],
    [
      'nodes: [{ memory: 8GiB, cpus: 2 }]',
      'like: nowhere',
      /^s\.yaml:4:3: host\.like: nowhere: there is no such file/,
    ],
  ];

  it.each(WRONG)('names line, key and what was expected: %s as %s', async (from, to, message) => {
    expect(TEXT).toContain(from);
    expect(await complaint(TEXT.replace(from, to))).toMatch(message);
  });

  it('names a line of whatever is no scenario', async () => {
    for (const text of ['', '3', '- a', '{', 'a: &b [*b]', '\u0000', '%YAML 9.9\n---\n', 'name: !!set {a}']) {
      expect(await complaint(text)).toMatch(/^s\.yaml:\d+:\d+: /);
    }
  });

  it('neither crashes on mutated text nor forgets the line', async () => {
    const edits = fc.array(
      fc.record({
        at: fc.nat(TEXT.length),
        remove: fc.nat(12),
        insert: fc.oneof(
          fc.string({ maxLength: 8 }),
          fc.constantFrom('- ', ': ', '{', ']', '\n  ', '0x', '!!', '&a ', '*a'),
        ),
      }),
      { minLength: 1, maxLength: 4 },
    );
    await fc.assert(
      fc.asyncProperty(edits, async (list) => {
        let text = TEXT;
        for (const { at, remove, insert } of list)
          text = text.slice(0, at) + insert + text.slice(at + remove);
        const said = await complaint(text);
        if (said !== 'nothing') expect(said).toMatch(/^s\.yaml:[1-9]\d*:[1-9]\d*: ./);
      }),
      { numRuns: 400 },
    );
  });
});
