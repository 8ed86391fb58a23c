/** Random lives of a small host, event by event, that an abstract host can follow. */
import { MIB } from '../../../src/abi/address.ts';
import { knobValues } from '../../../src/kernel/policy/knobs.ts';
import type { EventKind } from '../../../src/lab/scenario/language/event-schema.ts';
import { parseScenario } from '../../../src/lab/scenario/language/parse-scenario.ts';
import type { Scenario } from '../../../src/lab/scenario/scenario.ts';
import type { PlannedEvent } from '../../../src/lab/scenario/timeline.ts';
import { Dice } from '../../support/random-model/dice.ts';

/** Two nodes, memory that can be plugged in inside and outside CMRs, and few KeyIDs. */
export function smallScenario(): Promise<Scenario> {
  return parseScenario(
    `
name: small
title: a small host
host:
  nodes: [{ memory: 2304MiB }, { memory: 256MiB }]
  keyids: { mktme: 7, tdx: 4 }
  areas:
    dimm: { size: 256MiB, node: 0 }
    cxl: { size: 256MiB, node: 1, kind: cxl, state: present }
`,
    'small.yaml',
  );
}

const TDS = ['a', 'b', 'c', 'd'];
const PROGRAMS = ['x', 'y'];
const AREAS = ['dimm', 'cxl'];

/** `count` events that follow from `seed`; `turnsKnobs`: some of them change the policy. */
export function randomEvents(seed: number, count: number, turnsKnobs = false): PlannedEvent[] {
  const dice = new Dice(seed);
  const td = (): string => dice.pick(TDS);
  const size = (): number => MIB * dice.pick([1, 2, 4, 6, 16, 40]);
  const kinds: (() => { readonly do: EventKind; readonly name?: string } & Record<string, unknown>)[] = [
    () => ({ do: 'td-start', name: td(), memory: size(), vcpus: 1, node: dice.pick([0, 1, undefined]) }),
    () => ({ do: 'td-start', name: td(), memory: size(), vcpus: 2 }),
    () => ({ do: 'td-stop', td: td() }),
    () => ({ do: 'td-grow', td: td(), size: size() }),
    () => ({ do: 'td-convert', td: td(), size: 2 * MIB, to: dice.pick(['both', 'shared', 'private']) }),
    () => ({ do: 'balloon', td: td(), size: 2 * MIB }),
    () => ({
      do: 'host-alloc',
      name: dice.pick(PROGRAMS),
      share: dice.pick([0.5, 0.9, 0.99, 1]),
      movable: false,
      'non-tdx': dice.below(2) === 0,
    }),
    () => ({
      do: 'host-alloc',
      name: dice.pick(PROGRAMS),
      share: 0.98,
      node: dice.pick([0, 1]),
      movable: false,
      'non-tdx': false,
    }),
    () => ({ do: 'host-free', host: dice.pick(PROGRAMS) }),
    () => ({ do: 'hot-add', memory: 'dimm' }),
    () => ({ do: 'online', memory: dice.pick(AREAS), zone: 'auto' }),
    () => ({ do: 'offline', memory: dice.pick(AREAS) }),
    () => ({ do: 'kmem-bind', memory: 'cxl', zone: 'auto' }),
    () => ({ do: 'kmem-unbind', memory: 'cxl' }),
    () => ({ do: 'hot-remove', memory: 'dimm', surprise: false }),
    () => ({ do: 'use-tdx' }),
    () => ({ do: 'keyid-shortage', leave: dice.below(4) }),
  ];
  const knobKinds: typeof kinds = [
    () => ({ do: 'set', knob: 'tdAllocation', value: dice.pick(knobValues('tdAllocation')) }),
    () => ({ do: 'set', knob: 'onError', value: dice.pick(knobValues('onError')) }),
    () => ({ do: 'set', knob: 'hotplug', value: dice.pick(knobValues('hotplug')) }),
  ];
  return Array.from({ length: count }, (_, at) => {
    const event = dice.pick(turnsKnobs ? [...kinds, ...knobKinds] : kinds)();
    return { ...event, at, name: event.name ?? `event-${at}`, draw: 0 } as unknown as PlannedEvent;
  });
}
