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

/** Memory is made known to the kernel, unless the policy says no. Returns the code of the refusal, or null. */
function register(host: AbstractHost, s: AbstractState, areas: readonly number[]): string | null {
  const { layout } = host;
  const policy = host.knob(s, 'hotplug');
  const { add, other } = RULES[policy];
  const isOther = isTdxOn(host, s) && !areTdx(host, s, areas);
  const isRefused =
    isTdxOn(host, s) && host.broken !== policy && (add === 'none' || (add === 'tdx' && isOther));
  for (const area of areas) s[layout.area(area, AREA.state)] = isRefused ? MEMORY.idle : MEMORY.offline;
  if (isRefused) return add === 'none' ? 'tdx-is-on' : 'not-tdx-memory';
  s[layout.host(HOST.added)] = 1;
  if (other === 'its own node' && isOther && host.broken !== policy) {
    for (const area of areas) s[layout.area(area, AREA.node)] = separateNode(host, s, area);
  }
  return null;
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
          if (isApart) s[layout.area(area, AREA.zone)] = NON_TDX;
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
  readonly [K in 'hot-add' | 'hot-remove' | 'online' | 'offline' | 'kmem-bind' | 'kmem-unbind']: StepsOf<K>;
} = {
  'hot-add': [
    {
      name: 'hear of new memory',
      ways: (host, s) => (isHeld(host, s) ? 0 : 1),
      take: (host, s, task, { areas }) => {
        const refusal = areEvery(host, s, areas, MEMORY.absent) ? register(host, s, areas) : 'memory-present';
        host.finish(s, task, refusal === null ? 'done' : 'refused', refusal);
      },
    },
  ],
  'kmem-bind': [
    {
      name: 'bind the device',
      ways: (host, s) => (isHeld(host, s) ? 0 : 1),
      take: (host, s, task, { areas }) => {
        const isIdle = areEvery(host, s, areas, MEMORY.idle);
        const isAbsent = areEvery(host, s, areas, MEMORY.absent);
        const refusal = isIdle ? register(host, s, areas) : isAbsent ? 'memory-absent' : 'memory-known';
        if (refusal === null) host.goto(s, task, 'take the hot-plug lock');
        else host.finish(s, task, 'refused', refusal);
      },
    },
    ...onlineSteps<AreaEvent & { readonly do: 'kmem-bind' }>(),
  ],
  'kmem-unbind': [
    {
      name: 'take it offline and let go',
      ways: (host, s) => (isHeld(host, s) ? 0 : 1),
      take: (host, s, task, { areas }) => {
        const refusal = areEvery(host, s, areas, MEMORY.online)
          ? takeOffline(host, s, areas)
          : areEvery(host, s, areas, MEMORY.offline)
            ? null
            : 'not-kmem';
        if (refusal === null) for (const area of areas) takeOut(host, s, area, MEMORY.idle);
        host.finish(s, task, refusal === null ? 'done' : 'refused', refusal);
      },
    },
  ],
  'hot-remove': [
    {
      name: 'hear of memory that goes',
      ways: (host, s) => (isHeld(host, s) ? 0 : 1),
      take: (host, s, task, { areas, surprise }) => {
        const { layout } = host;
        const has = (state: number): boolean =>
          areas.some((area) => s[layout.area(area, AREA.state)] === state);
        if (has(MEMORY.absent)) {
          host.finish(s, task, 'refused', 'memory-absent');
          return;
        }
        const refusal = has(MEMORY.online) && !surprise ? takeOffline(host, s, areas) : null;
        if (refusal === null) for (const area of areas) remove(host, s, area);
        host.finish(s, task, refusal === null ? 'done' : 'refused', refusal);
      },
    },
  ],
  online: onlineSteps(),
  offline: [
    lockStep('isolate the pages'),
    {
      name: 'isolate the pages',
      take: (host, s, task, { areas }) => {
        const refusal = takeOffline(host, s, areas);
        host.finish(s, task, refusal === null ? 'done' : 'refused', refusal);
      },
    },
  ],
};

/** Returns why the pages cannot be taken from the allocator, or null. */
function takeOffline(host: AbstractHost, s: AbstractState, areas: readonly number[]): string | null {
  const { layout, config } = host;
  if (!areEvery(host, s, areas, MEMORY.online)) return 'not-online-memory';
  if (areas.some((area) => s[layout.area(area, AREA.free)] !== config.areas[area]!.pages))
    return 'memory-in-use';
  for (const area of areas) takeOut(host, s, area, MEMORY.offline);
  return null;
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
  if (state === MEMORY.absent || state === MEMORY.idle) s[layout.area(area, AREA.node)] = node;
  s[layout.area(area, AREA.zone)] = ZONE_ORDER.indexOf(zone);
}

/** The node that memory of an area's node goes to: the one it went to before, or one that is new. */
function separateNode({ layout, config }: AbstractHost, s: AbstractState, area: number): number {
  const known = s[layout.area(area, AREA.separate)]!;
  if (known > 0) return known;
  let most = 0;
  config.areas.forEach(({ node }, i) => {
    most = Math.max(most, node, s[layout.area(i, AREA.separate)]!);
  });
  config.areas.forEach(({ node }, i) => {
    if (node === config.areas[area]!.node) s[layout.area(i, AREA.separate)] = most + 1;
  });
  return most + 1;
}
