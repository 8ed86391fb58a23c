/** The host's own programs, and who else takes KeyIDs or turns knobs. */
import type { StepsOf } from '../abstract-host.ts';
import { candidates, type PageRequest } from '../allocation.ts';
import type { AbstractEvent } from '../config.ts';
import { AREA, HOST, LIFE, OWNER, TASK } from '../layout.ts';
import { choosePages, giveBackAll } from './page-steps.ts';

type Alloc = Extract<AbstractEvent, { do: 'host-alloc' }>;

/** @internal */
export const HOST_STEPS: {
  readonly [K in 'host-alloc' | 'host-free' | 'keyid-shortage' | 'set']: StepsOf<K>;
} = {
  'host-alloc': [
    {
      name: 'see what is free',
      take: (host, s, task, { owner, pages, node }) => {
        const { layout } = host;
        if (s[layout.owner(owner, OWNER.status)] !== LIFE.none)
          return host.finish(s, task, 'refused', 'name-taken');
        let free = 0;
        for (let area = 0; area < layout.areas; area++) {
          if (node === null || s[layout.area(area, AREA.node)] === node)
            free += s[layout.area(area, AREA.free)]!;
        }
        s[layout.owner(owner, OWNER.status)] = LIFE.building;
        s[layout.task(task, TASK.rest)] = typeof pages === 'number' ? pages : Math.floor(free * pages.share);
        host.goto(s, task, 'allocate');
      },
    },
    {
      name: 'allocate',
      ways: (host, s, _, event) =>
        Math.max(1, candidates(host, s, requestOf(host.config.owners, event)).areas.length),
      take: (host, s, task, event, way) => {
        const { layout } = host;
        const rest = s[layout.task(task, TASK.rest)]!;
        const { owner } = event;
        const request = requestOf(host.config.owners, event);
        const found = choosePages(host, s, request, { use: 'host', rest, way });
        if (found === 'enough') {
          s[layout.owner(owner, OWNER.status)] = LIFE.living;
          return host.finish(s, task, 'done');
        }
        if (found === 'nothing') {
          giveBackAll(host, s, owner);
          s[layout.owner(owner, OWNER.status)] = LIFE.none;
          return host.finish(s, task, 'refused', 'host-memory');
        }
        s[layout.area(found.area, AREA.free)]! -= found.pages;
        s[layout.memory(owner, found.area)]! += found.pages;
        s[layout.task(task, TASK.rest)]! -= found.pages;
      },
    },
  ],
  'host-free': [
    {
      name: 'free',
      take: (host, s, task, { owner }) => {
        const at = host.layout.owner(owner, OWNER.status);
        if (s[at] !== LIFE.living) return host.finish(s, task, 'refused', 'no-such-allocation');
        giveBackAll(host, s, owner);
        s[at] = LIFE.none;
        host.finish(s, task, 'done');
      },
    },
  ],
  'keyid-shortage': [
    {
      name: 'take or give KeyIDs',
      take: (host, s, task, { leave }) => {
        const keys = host.layout.host(HOST.keys);
        const foreign = host.layout.host(HOST.foreignKeys);
        const moved = Math.max(s[keys]! - leave, -s[foreign]!);
        s[keys]! -= moved;
        s[foreign]! += moved;
        host.finish(s, task, 'done');
      },
    },
  ],
  set: [
    {
      name: 'turn the knob',
      take: (host, s, task, { knob, value }) => {
        s[host.layout.knob(knob)] = value;
        host.finish(s, task, 'done');
      },
    },
  ],
};

function requestOf(
  owners: readonly { readonly movable: boolean }[],
  { owner, node, nonTdxOk }: Alloc,
): PageRequest {
  return {
    isForTd: false,
    node: node ?? 0,
    isStrict: node !== null,
    movable: owners[owner]!.movable,
    nonTdxOk,
  };
}
