/** What must hold in every state of an abstract host, and of every outcome on the way to it. */
import { promisesNoKill } from '../../scenario/invariants/promise.ts';
import type { AbstractHost, AbstractState } from './abstract-host.ts';
import { isTdx } from './allocation.ts';
import { LIVE_KNOBS } from './config.ts';
import { AREA, HOST, LIFE, MEMORY, OWNER, TASK, TDX } from './layout.ts';

/** @public */
export interface AbstractInvariant {
  readonly name: string;
  /** What holds, in one sentence. */
  readonly title: string;
  /** What is wrong, or null. */
  readonly check: (host: AbstractHost, s: AbstractState) => string | null;
}

const LACKS = new Set(['module-refused-page', 'pamt-add-failed', 'page-not-tdx', 'no-tdx-memory']);

/** @public */
export const ABSTRACT_INVARIANTS: readonly AbstractInvariant[] = [
  {
    name: 'accounts-balance',
    title:
      'every page of memory that is online is free, an owner’s, PAMT or leaked, and no other memory has pages',
    check: (host, s) => {
      const { layout, config } = host;
      for (let area = 0; area < layout.areas; area++) {
        let pages =
          s[layout.area(area, AREA.free)]! +
          s[layout.area(area, AREA.pamt)]! +
          s[layout.area(area, AREA.kept)]!;
        for (let owner = 0; owner < layout.owners; owner++)
          pages += s[layout.control(owner, area)]! + s[layout.memory(owner, area)]!;
        const isOnline = s[layout.area(area, AREA.state)] === MEMORY.online;
        const { name, pages: all } = config.areas[area]!;
        if (s[layout.area(area, AREA.free)]! < 0 || pages !== (isOnline ? all : 0))
          return `${name} has ${pages} pages accounted for, of ${isOnline ? all : 0}`;
      }
      return null;
    },
  },
  {
    name: 'keyids-balance',
    title: 'every KeyID is free, a TD’s, another user’s or leaked',
    check: (host, s) => {
      const { layout, config } = host;
      const keys =
        s[layout.host(HOST.keys)]! +
        s[layout.host(HOST.foreignKeys)]! +
        s[layout.host(HOST.leakedKeys)]! +
        host.keyHolders(s);
      return keys === config.keyIds ? null : `${keys} KeyIDs are accounted for, of ${config.keyIds}`;
    },
  },
  {
    name: 'only-tdmr-pages',
    title: 'unless the policy trusts every page, the module is only offered TDX memory',
    check: (host, s) => {
      const { layout } = host;
      for (let task = 0; task < layout.tasks; task++) {
        const area = s[layout.task(task, TASK.area)]! - 1;
        if (area < 0 || isTdx(host, s, area) || promisesOnlyTdx(host, s) === false) continue;
        return `${host.config.areas[area]!.name} is no TDX memory, and its pages are about to be given`;
      }
      return null;
    },
  },
  {
    name: 'no-td-killed',
    title: 'under a policy that promises it, no TD is killed for lack of TDX memory',
    check: (host, s) => {
      const { outcome, config } = host;
      if (outcome?.result !== 'killed' || !LACKS.has(outcome.reason ?? '')) return null;
      const knobs = Object.fromEntries(LIVE_KNOBS.map((knob) => [knob, host.knob(s, knob)]));
      if (!promisesNoKill({ ...config.policy, ...knobs })) return null;
      return `${config.tasks[outcome.task]!.events[outcome.event]!.name} killed a TD: ${outcome.reason}`;
    },
  },
  {
    name: 'reasons',
    title: 'nothing is refused or killed without a reason',
    check: ({ outcome }) =>
      outcome !== null && outcome.result !== 'done' && !outcome.reason
        ? 'an event ended without a reason'
        : null,
  },
  {
    name: 'allocator-is-tdx',
    title: 'under reject-non-tdx what comes online after initialisation is TDX memory',
    check: (host, s) => {
      const { layout, config } = host;
      if (config.policy.hotplug !== 'reject-non-tdx' || host.knob(s, 'hotplug') !== 'reject-non-tdx')
        return null;
      if (config.policy.tdxMemory === 'nodes' || config.policy.tdxMemory === 'cmr') return null;
      if (s[layout.host(HOST.tdx)] !== TDX.initialized) return null;
      for (let area = 0; area < layout.areas; area++) {
        const { kind, name } = config.areas[area]!;
        if (kind !== 'ram' || isTdx(host, s, area)) continue;
        if (s[layout.area(area, AREA.state)] === MEMORY.online) return `${name} is online and no TDX memory`;
      }
      return null;
    },
  },
  {
    name: 'first-wins',
    title: 'under winner-takes-all TDX is not initialised where memory was added',
    check: (host, s) => {
      const { layout, config } = host;
      if (config.policy.hotplug !== 'winner-takes-all' || host.knob(s, 'hotplug') !== 'winner-takes-all')
        return null;
      const both = s[layout.host(HOST.added)] === 1 && s[layout.host(HOST.tdx)] === TDX.initialized;
      return both ? 'TDX is initialised, and memory was added' : null;
    },
  },
  {
    name: 'apart-stays-apart',
    title: 'under separate-zone pages of the zone NonTdx are of those only who asked for them',
    check: (host, s) => {
      const { layout, config } = host;
      if (config.policy.hotplug !== 'separate-zone') return null;
      for (let area = 0; area < layout.areas; area++) {
        if (s[layout.area(area, AREA.zone)] !== 0) continue;
        for (let owner = 0; owner < layout.owners; owner++) {
          if (!config.owners[owner]!.isTd) continue;
          if (s[layout.control(owner, area)]! + s[layout.memory(owner, area)]! > 0)
            return `${config.owners[owner]!.name} has pages of ${config.areas[area]!.name}`;
        }
      }
      return null;
    },
  },
  {
    name: 'ended-tds-have-nothing',
    title: 'a TD that is no more has no KeyID and no pages',
    check: (host, s) => {
      const { layout, config } = host;
      for (let owner = 0; owner < layout.owners; owner++) {
        if (s[layout.owner(owner, OWNER.status)] !== LIFE.none) continue;
        let has = s[layout.owner(owner, OWNER.key)]!;
        for (let area = 0; area < layout.areas; area++)
          has += s[layout.control(owner, area)]! + s[layout.memory(owner, area)]!;
        if (has !== 0) return `${config.owners[owner]!.name} is no more and still has something`;
      }
      return null;
    },
  },
];

/** `trust` promises nothing, and a knob that was turned does not promise for what was allocated before. */
function promisesOnlyTdx(host: AbstractHost, s: AbstractState): boolean {
  return (
    host.config.policy.tdAllocation !== 'trust' &&
    host.knob(s, 'tdAllocation') === host.config.policy.tdAllocation
  );
}
