/** Memory comes and goes; what the policy of hot-plug says is a table. */

import type { HotplugPolicy } from '../../../../kernel/policy/kernel-policy.ts';
import { ZONE_ORDER } from '../../../../kernel/zone.ts';
import { type AbstractHost, type AbstractState, isTdxOn, type Step, type StepsOf } from '../abstract-host.ts';
import { isTdx } from '../allocation.ts';
import type { AbstractEvent } from '../config.ts';
import { AREA, HOST, LIFE, MEMORY, OWNER } from '../layout.ts';

type AreaEvent = AbstractEvent & { readonly areas: readonly number[] };

/** Which memory may come while TDX is initialised. */
interface HotplugRule {
  readonly add: 'any' | 'tdx' | 'none';
  readonly online: 'any' | 'tdx';
  /** Where memory goes that is not TDX memory. */
  readonly other: 'its zone' | 'NonTdx' | 'its own node';
}

const TODAY: HotplugRule = { add: 'any', online: 'tdx', other: 'its zone' };
const RULES: Readonly<Record<HotplugPolicy, HotplugRule>> = {
  'reject-non-tdx': TODAY,
  'refuse-all': { ...TODAY, add: 'none' },
  'reject-at-add': { ...TODAY, add: 'tdx' },
  'winner-takes-all': { ...TODAY, add: 'none' },
  allow: { ...TODAY, online: 'any' },
  'separate-zone': { add: 'any', online: 'any', other: 'NonTdx' },
  'separate-node': { add: 'any', online: 'any', other: 'its own node' },
};

const NON_TDX = ZONE_ORDER.indexOf('NonTdx');

function isHeld(host: AbstractHost, s: AbstractState): boolean {
  return s[host.layout.host(HOST.lock)] !== 0;
}

/** Waits for the hot-plug lock and takes it. */
function lockStep<E extends AreaEvent>(next: string): Step<E> {
  return {
    name: 'take the hot-plug lock',
    ways: (host, s) => (isHeld(host, s) ? 0 : 1),
    take: (host, s, task) => {
      s[host.layout.host(HOST.lock)] = task + 1;
      host.goto(s, task, next);
    },
  };
}

/** Memory is plugged in, unless the policy says no; the event ends or goes on with the step `next`. */
function plugStep<E extends AreaEvent>(next: string | null): Step<E> {
  return {
    name: 'hear of new memory',
    ways: (host, s) => (isHeld(host, s) ? 0 : 1),
    take: (host, s, task, { areas }) => {
      const { layout } = host;
      if (!areEvery(host, s, areas, MEMORY.absent)) {
        host.finish(s, task, 'refused', 'memory-present');
        return;
      }
      const isRefused = isTdxOn(host, s) && !mayAdd(host, s, areas);
      for (const area of areas)
        s[layout.area(area, AREA.state)] = isRefused ? MEMORY.refused : MEMORY.offline;
      if (isRefused) {
        host.finish(s, task, 'refused', 'hot-add-refused');
        return;
      }
      s[layout.host(HOST.added)] = 1;
      const { other } = RULES[host.knob(s, 'hotplug')];
      if (other === 'its own node' && isTdxOn(host, s) && !areTdx(host, s, areas)) {
        const node = nextNode(host, s);
        for (const area of areas) s[layout.area(area, AREA.node)] = node;
      }
      if (next === null) host.finish(s, task, 'done');
      else host.goto(s, task, next);
    },
  };
}

function onlineSteps<E extends AreaEvent>(): readonly Step<E>[] {
  return [
    lockStep('ask the notifiers'),
    {
      name: 'ask the notifiers',
      take: (host, s, task, { areas }) => {
        const policy = host.knob(s, 'hotplug');
        const isAsked = isTdxOn(host, s) && host.broken !== 'notifier';
        if (!areEvery(host, s, areas, MEMORY.offline)) host.finish(s, task, 'refused', 'not-offline-memory');
        else if (isAsked && RULES[policy].online === 'tdx' && !areTdx(host, s, areas))
          host.finish(s, task, 'refused', 'not-tdx-memory');
        else host.goto(s, task, 'give the pages to the allocator');
      },
    },
    {
      name: 'give the pages to the allocator',
      take: (host, s, task, { areas }) => {
        const { layout, config } = host;
        const { other } = RULES[host.knob(s, 'hotplug')];
        const isApart = other === 'NonTdx' && isTdxOn(host, s) && !areTdx(host, s, areas);
        for (const area of areas) {
          if (isApart && host.broken !== 'separate-zone') s[layout.area(area, AREA.zone)] = NON_TDX;
          s[layout.area(area, AREA.state)] = MEMORY.online;
          s[layout.area(area, AREA.free)] = config.areas[area]!.pages;
        }
        host.finish(s, task, 'done');
      },
    },
  ];
}

/** @internal */
export const MEMORY_STEPS: {
  readonly [K in 'hot-add' | 'hot-remove' | 'online' | 'offline' | 'kmem-bind']: StepsOf<K>;
} = {
  'hot-add': [plugStep(null)],
  'kmem-bind': [plugStep('take the hot-plug lock'), ...onlineSteps()],
  'hot-remove': [
    {
      name: 'hear of memory that went',
      ways: (host, s) => (isHeld(host, s) ? 0 : 1),
      take: (host, s, task, { areas }) => {
        if (areas.some((area) => s[host.layout.area(area, AREA.state)] === MEMORY.absent)) {
          host.finish(s, task, 'refused', 'memory-absent');
          return;
        }
        for (const area of areas) remove(host, s, area);
        host.finish(s, task, 'done');
      },
    },
  ],
  online: onlineSteps(),
  offline: [
    lockStep('isolate the pages'),
    {
      name: 'isolate the pages',
      take: (host, s, task, { areas }) => {
        const { layout, config } = host;
        const isInUse = areas.some((area) => s[layout.area(area, AREA.free)] !== config.areas[area]!.pages);
        if (!areEvery(host, s, areas, MEMORY.online)) host.finish(s, task, 'refused', 'not-online-memory');
        else if (isInUse) host.finish(s, task, 'refused', 'memory-in-use');
        else {
          for (const area of areas) takeOut(host, s, area, MEMORY.offline);
          host.finish(s, task, 'done');
        }
      },
    },
  ],
};

function mayAdd(host: AbstractHost, s: AbstractState, areas: readonly number[]): boolean {
  const policy = host.knob(s, 'hotplug');
  const { add } = RULES[policy];
  return add === 'any' || host.broken === policy || (add === 'tdx' && areTdx(host, s, areas));
}

function areTdx(host: AbstractHost, s: AbstractState, areas: readonly number[]): boolean {
  return areas.every((area) => isTdx(host, s, area));
}

function areEvery(host: AbstractHost, s: AbstractState, areas: readonly number[], state: number): boolean {
  return areas.every((area) => s[host.layout.area(area, AREA.state)] === state);
}

/** Memory is gone whether or not somebody had it: TDs do not live on without it. */
function remove(host: AbstractHost, s: AbstractState, area: number): void {
  const { layout, config } = host;
  const isInUse =
    s[layout.area(area, AREA.state)] === MEMORY.online &&
    s[layout.area(area, AREA.free)] !== config.areas[area]!.pages;
  if (!isInUse) {
    takeOut(host, s, area, MEMORY.absent);
    return;
  }
  for (let td = 0; td < layout.owners; td++) {
    if (s[layout.owner(td, OWNER.status)] !== LIFE.living || !config.owners[td]!.isTd) continue;
    if (s[layout.control(td, area)]! + s[layout.memory(td, area)]! === 0) continue;
    s[layout.owner(td, OWNER.status)] = LIFE.dead;
    host.fates.push(td);
  }
}

function takeOut({ layout, config }: AbstractHost, s: AbstractState, area: number, state: number): void {
  const { node, zone } = config.areas[area]!;
  s[layout.area(area, AREA.state)] = state;
  s[layout.area(area, AREA.free)] = 0;
  if (state === MEMORY.absent) s[layout.area(area, AREA.node)] = node;
  s[layout.area(area, AREA.zone)] = ZONE_ORDER.indexOf(zone);
}

/** A number that no node has. */
function nextNode({ layout }: AbstractHost, s: AbstractState): number {
  let most = 0;
  for (let area = 0; area < layout.areas; area++) most = Math.max(most, s[layout.area(area, AREA.node)]!);
  return most + 1;
}
