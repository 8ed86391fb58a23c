/** Memory comes and goes; what the policy of hot-plug says is a table. */

import type { HotplugPolicy } from '../../../../kernel/policy/kernel-policy.ts';
import { ZONE_ORDER } from '../../../../kernel/zone.ts';
import { type AbstractHost, type AbstractState, isTdxOn, type Step, type StepsOf } from '../abstract-host.ts';
import { isTdx } from '../allocation.ts';
import type { AbstractEvent } from '../config.ts';
import { AREA, HOST, LIFE, MEMORY, OWNER, TASK } from '../layout.ts';

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
function lockStep<E extends AreaEvent>(then: string): Step<E> {
  return {
    name: 'take the hot-plug lock',
    ways: (host, s) => (isHeld(host, s) ? 0 : 1),
    take: (host, s, task) => {
      s[host.layout.host(HOST.lock)] = task + 1;
      host.goto(s, task, then);
    },
  };
}

/** The area that a task is at. */
function current(host: AbstractHost, s: AbstractState, task: number, { areas }: AreaEvent): number {
  return areas[s[host.layout.task(task, TASK.piece)]!]!;
}

function everyArea(host: AbstractHost, s: AbstractState, { areas }: AreaEvent, state: number): boolean {
  return areas.every((area) => s[host.layout.area(area, AREA.state)] === state);
}

/** @internal */
export const MEMORY_STEPS: {
  readonly [K in 'hot-add' | 'hot-remove' | 'online' | 'offline']: StepsOf<K>;
} = {
  'hot-add': [
    {
      name: 'hear of it from the firmware',
      ways: (host, s) => (isHeld(host, s) ? 0 : 1),
      take: (host, s, task, event) => {
        const { layout } = host;
        if (!everyArea(host, s, event, MEMORY.absent))
          return host.finish(s, task, 'refused', 'memory-present');
        const policy = host.knob(s, 'hotplug');
        const { add } = RULES[policy];
        const isRefused =
          isTdxOn(host, s) &&
          host.broken !== policy &&
          (add === 'none' || (add === 'tdx' && !event.areas.every((area) => isTdx(host, s, area))));
        if (isRefused) return host.finish(s, task, 'refused', 'hot-add-refused');
        for (const area of event.areas) s[layout.area(area, AREA.state)] = MEMORY.offline;
        s[layout.host(HOST.added)] = 1;
        host.finish(s, task, 'done');
      },
    },
  ],
  'hot-remove': [
    {
      name: 'hear of it from the firmware',
      ways: (host, s) => (isHeld(host, s) ? 0 : 1),
      take: (host, s, task, event) => {
        const { layout } = host;
        if (event.areas.some((area) => s[layout.area(area, AREA.state)] === MEMORY.absent))
          return host.finish(s, task, 'refused', 'memory-absent');
        for (const area of event.areas) remove(host, s, area);
        host.finish(s, task, 'done');
      },
    },
  ],
  online: [
    lockStep('ask the notifiers'),
    {
      name: 'ask the notifiers',
      take: (host, s, task, event) => {
        const area = current(host, s, task, event);
        if (s[host.layout.area(area, AREA.state)] !== MEMORY.offline)
          return host.finish(s, task, 'refused', 'not-offline-memory');
        const policy = host.knob(s, 'hotplug');
        const isAsked = isTdxOn(host, s) && host.broken !== 'notifier' && host.broken !== policy;
        if (isAsked && RULES[policy].online === 'tdx' && !isTdx(host, s, area))
          return host.finish(s, task, 'refused', 'not-tdx-memory');
        host.goto(s, task, 'give the pages to the allocator');
      },
    },
    {
      name: 'give the pages to the allocator',
      take: (host, s, task, event) => {
        const { layout, config } = host;
        const area = current(host, s, task, event);
        const { other } = RULES[host.knob(s, 'hotplug')];
        if (isTdxOn(host, s) && !isTdx(host, s, area)) {
          if (other === 'NonTdx') s[layout.area(area, AREA.zone)] = NON_TDX;
          if (other === 'its own node') s[layout.area(area, AREA.node)] = nextNode(host, s);
        }
        s[layout.area(area, AREA.state)] = MEMORY.online;
        s[layout.area(area, AREA.free)] = config.areas[area]!.pages;
        nextPiece(host, s, task, event, 'ask the notifiers');
      },
    },
  ],
  offline: [
    lockStep('isolate the pages'),
    {
      name: 'isolate the pages',
      take: (host, s, task, event) => {
        const { layout, config } = host;
        const area = current(host, s, task, event);
        if (s[layout.area(area, AREA.state)] !== MEMORY.online)
          return host.finish(s, task, 'refused', 'not-online-memory');
        if (s[layout.area(area, AREA.free)] !== config.areas[area]!.pages)
          return host.finish(s, task, 'refused', 'memory-in-use');
        takeOut(host, s, area, MEMORY.offline);
        nextPiece(host, s, task, event, 'isolate the pages');
      },
    },
  ],
};

function nextPiece(
  host: AbstractHost,
  s: AbstractState,
  task: number,
  event: AreaEvent,
  again: string,
): void {
  const at = host.layout.task(task, TASK.piece);
  s[at]!++;
  if (s[at] === event.areas.length) host.finish(s, task, 'done');
  else host.goto(s, task, again);
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
  s[layout.area(area, AREA.node)] = node;
  s[layout.area(area, AREA.zone)] = ZONE_ORDER.indexOf(zone);
}

/** A number that no node has. */
function nextNode({ layout }: AbstractHost, s: AbstractState): number {
  let most = 0;
  for (let area = 0; area < layout.areas; area++) most = Math.max(most, s[layout.area(area, AREA.node)]!);
  return most + 1;
}
