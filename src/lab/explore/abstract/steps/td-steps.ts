/** TDs begin, grow, convert and end. */
import type { AbstractHost, AbstractState, Step, StepsOf } from '../abstract-host.ts';
import type { AbstractEvent } from '../config.ts';
import { AREA, HOST, LIFE, OWNER, TASK, TDX } from '../layout.ts';
import { enableSteps } from './enable-steps.ts';
import { giveBackAll, OF_MODULE, pageSteps } from './page-steps.ts';

type Start = Extract<AbstractEvent, { do: 'td-start' }>;
type Grow = Extract<AbstractEvent, { do: 'td-grow' }>;
type Convert = Extract<AbstractEvent, { do: 'td-convert' }>;
type TdEvent = { readonly td: number };

/** Teardown in the order the module wants; what `reason` says comes of the event then. */
function endSteps<E extends AbstractEvent & TdEvent>(): readonly Step<E>[] {
  return [
    {
      name: 'free the KeyID',
      take: (host, s, task, { td }) => {
        freeKeyId(host, s, td);
        host.goto(s, task, 'give pages back');
      },
    },
    {
      name: 'give pages back',
      take: (host, s, task, { td }) => {
        giveBackAll(host, s, td);
        const { layout } = host;
        const isKilled = s[layout.owner(td, OWNER.status)] === LIFE.dead;
        s[layout.owner(td, OWNER.status)] = LIFE.none;
        const reason = host.reasons[s[layout.task(task, TASK.reason)]!]!;
        host.finish(s, task, reason === '' ? 'done' : isKilled ? 'killed' : 'refused', reason || null);
      },
    },
  ];
}

/** A module that was shut down frees no KeyID: it is leaked with all pages. */
function freeKeyId(host: AbstractHost, s: AbstractState, td: number): void {
  const { layout } = host;
  const at = layout.owner(td, OWNER.key);
  let controls = 0;
  for (let area = 0; area < layout.areas; area++) controls += s[layout.control(td, area)]!;
  if (s[layout.host(HOST.tdx)] === TDX.shutDown && controls > 0) {
    s[layout.host(HOST.leakedKeys)]! += s[at]!;
    for (let area = 0; area < layout.areas; area++) {
      s[layout.area(area, AREA.kept)]! += s[layout.control(td, area)]! + s[layout.memory(td, area)]!;
      s[layout.control(td, area)] = 0;
      s[layout.memory(td, area)] = 0;
    }
  } else s[layout.host(HOST.keys)]! += s[at]!;
  s[at] = 0;
}

function undo(host: AbstractHost, s: AbstractState, task: number, reason: string): void {
  s[host.layout.task(task, TASK.reason)] = host.reasonNumber(reason);
  host.goto(s, task, 'free the KeyID');
}

/** The allocation for a living TD failed, which goes on with less, or the module did: then `onError` says what follows. */
function hinder(host: AbstractHost, s: AbstractState, task: number, { td }: TdEvent, reason: string): void {
  const { layout } = host;
  const onError = host.knob(s, 'onError');
  if (!OF_MODULE.has(reason) || onError === 'refuse') {
    host.finish(s, task, 'refused', reason);
    return;
  }
  s[layout.owner(td, OWNER.status)] = LIFE.dead;
  if (onError === 'shutdown') shutDown(host, s);
  if (onError === 'kill-td') undo(host, s, task, reason);
  else host.finish(s, task, 'killed', reason);
}

/** The module is gone for this boot, and every TD with it. */
function shutDown(host: AbstractHost, s: AbstractState): void {
  const { layout } = host;
  s[layout.host(HOST.tdx)] = TDX.shutDown;
  for (let td = 0; td < layout.owners; td++) {
    if (!host.config.owners[td]!.isTd || s[layout.owner(td, OWNER.status)] !== LIFE.living) continue;
    s[layout.owner(td, OWNER.status)] = LIFE.dead;
    host.fates.push(td);
  }
}

/** Looks for a TD that lives. */
function findStep<E extends AbstractEvent & TdEvent>(
  found: (host: AbstractHost, s: AbstractState, task: number, event: E) => void,
): Step<E> {
  return {
    name: 'find the TD',
    take: (host, s, task, event) => {
      if (s[host.layout.owner(event.td, OWNER.status)] === LIFE.living) found(host, s, task, event);
      else host.finish(s, task, 'refused', 'no-such-td');
    },
  };
}

/** @internal */
export const TD_STEPS: {
  readonly [K in 'td-start' | 'td-stop' | 'td-grow' | 'td-convert']: StepsOf<K>;
} = {
  'td-start': [
    ...enableSteps<Start>('take a KeyID', (host, s, { td }) =>
      s[host.layout.owner(td, OWNER.status)] === LIFE.none ? null : 'name-taken',
    ),
    {
      name: 'take a KeyID',
      take: (host, s, task, { td, control, node }) => {
        const { layout } = host;
        if (s[layout.host(HOST.keys)] === 0) return host.finish(s, task, 'refused', 'keyids-exhausted');
        s[layout.host(HOST.keys)]!--;
        s[layout.owner(td, OWNER.key)] = 1;
        s[layout.owner(td, OWNER.node)] = node;
        s[layout.owner(td, OWNER.status)] = LIFE.building;
        s[layout.task(task, TASK.rest)] = control;
        host.goto(s, task, 'allocate control');
      },
    },
    ...pageSteps<Start>({
      what: 'control',
      owner: ({ td }) => td,
      whole: (host, s, task, { pages }) => {
        s[host.layout.task(task, TASK.rest)] = pages;
        host.goto(s, task, 'allocate memory');
      },
      failed: (host, s, task, _, reason) => undo(host, s, task, reason),
    }),
    ...pageSteps<Start>({
      what: 'memory',
      owner: ({ td }) => td,
      whole: (host, s, task, { td }) => {
        s[host.layout.owner(td, OWNER.status)] = LIFE.living;
        host.finish(s, task, 'done');
      },
      failed: (host, s, task, _, reason) => undo(host, s, task, reason),
    }),
    ...endSteps<Start>(),
  ],
  'td-stop': [
    {
      name: 'find the TD',
      take: (host, s, task, { td }) => {
        const { layout } = host;
        const status = s[layout.owner(td, OWNER.status)];
        if (status === LIFE.none) return host.finish(s, task, 'refused', 'no-such-td');
        // A dead one is closed like any other, and nobody is killed by it.
        s[layout.owner(td, OWNER.status)] = LIFE.building;
        host.goto(s, task, 'free the KeyID');
      },
    },
    ...endSteps<Extract<AbstractEvent, { do: 'td-stop' }>>(),
  ],
  'td-grow': [
    findStep<Grow>((host, s, task, event) => beginGiving(host, s, task, event, event.pages)),
    ...pageSteps<Grow>({
      what: 'control',
      owner: ({ td }) => td,
      whole: (host, s, task, { pages }) => {
        s[host.layout.task(task, TASK.rest)] = pages;
        host.goto(s, task, 'allocate memory');
      },
      failed: hinder,
    }),
    ...pageSteps<Grow>({
      what: 'memory',
      owner: ({ td }) => td,
      whole: (host, s, task) => host.finish(s, task, 'done'),
      failed: hinder,
    }),
    ...endSteps<Grow>(),
  ],
  'td-convert': [
    findStep<Convert>((host, s, task, { td, to }) => {
      if (to !== 'private') return host.goto(s, task, 'take pages back');
      if (s[host.layout.owner(td, OWNER.shared)] === 0)
        return host.finish(s, task, 'refused', 'no-such-shared-memory');
      host.goto(s, task, 'begin giving');
    }),
    {
      name: 'take pages back',
      take: (host, s, task, { td, pages, to }) => {
        share(host, s, td, pages);
        if (to === 'both') return host.goto(s, task, 'begin giving');
        if (to === 'host') s[host.layout.owner(td, OWNER.shared)] = 0;
        host.finish(s, task, 'done');
      },
    },
    {
      name: 'begin giving',
      take: (host, s, task, event) => {
        const { layout } = host;
        const shared = s[layout.owner(event.td, OWNER.shared)]!;
        beginGiving(host, s, task, event, Math.min(event.pages, shared));
      },
    },
    ...pageSteps<Convert>({
      what: 'control',
      owner: ({ td }) => td,
      whole: (host, s, task, { td, pages }) => {
        const { layout } = host;
        s[layout.task(task, TASK.rest)] = Math.min(pages, s[layout.owner(td, OWNER.shared)]!);
        host.goto(s, task, 'allocate memory');
      },
      failed: hinder,
    }),
    ...pageSteps<Convert>({
      what: 'memory',
      owner: ({ td }) => td,
      whole: (host, s, task, event) => {
        settle(host, s, task, event);
        host.finish(s, task, 'done');
      },
      failed: (host, s, task, event, reason) => {
        settle(host, s, task, event);
        hinder(host, s, task, event, reason);
      },
    }),
    ...endSteps<Convert>(),
  ],
};

/** Secure EPT first where it is needed. */
function beginGiving(
  host: AbstractHost,
  s: AbstractState,
  task: number,
  event: Grow | Convert,
  pages: number,
): void {
  const needsTables = event.control > 0 || host.source !== null;
  s[host.layout.task(task, TASK.rest)] = needsTables ? event.control : pages;
  host.goto(s, task, needsTables ? 'allocate control' : 'allocate memory');
}

/** What was made private again is shared no longer. */
function settle({ layout }: AbstractHost, s: AbstractState, task: number, { td, pages }: Convert): void {
  const at = layout.owner(td, OWNER.shared);
  s[at]! -= Math.min(pages, s[at]!) - s[layout.task(task, TASK.rest)]!;
}

/** Up to `pages` of a TD's memory go back to the allocator. */
function share(host: AbstractHost, s: AbstractState, td: number, pages: number): void {
  const { layout, source } = host;
  let rest = pages;
  const parts =
    source?.back() ??
    Array.from({ length: layout.areas }, (_, i) => {
      const area = layout.areas - 1 - i;
      const part = Math.min(rest, s[layout.memory(td, area)]!);
      rest -= part;
      return { area, pages: part };
    });
  for (const part of parts) {
    s[layout.memory(td, part.area)]! -= part.pages;
    s[layout.area(part.area, AREA.free)]! += part.pages;
    s[layout.owner(td, OWNER.shared)]! += part.pages;
  }
}
