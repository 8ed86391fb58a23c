/**
 * Plays events on a real host and on the abstract host of the same scenario, which repeats where pages came from, and
 * compares what came of each event, and all accounts after it.
 */
import { ZONE_ORDER } from '../../../src/kernel/zone.ts';
import {
  AbstractHost,
  type AbstractState,
  type PageSource,
} from '../../../src/lab/explore/abstract/abstract-host.ts';
import { abstractConfig, type PlacedConfig } from '../../../src/lab/explore/abstract/from-scenario.ts';
import { AREA, HOST, LIFE, MEMORY, OWNER, TDX } from '../../../src/lab/explore/abstract/layout.ts';
import { playEvent } from '../../../src/lab/scenario/engine/play-event.ts';
import { ScenarioHost } from '../../../src/lab/scenario/engine/scenario-host.ts';
import type { PolicySet, Scenario } from '../../../src/lab/scenario/scenario.ts';
import type { PlannedEvent } from '../../../src/lab/scenario/timeline.ts';
import { LentPages, type LentUse, type Request } from './lent-pages.ts';

/** Free pages that a real zone may have in pieces too small for 2 MiB. */
const SCATTERED = 4096;

/** Why initialisation fails, in the model. */
const ENABLING = new Set(['seamcall-failed', 'pamt-allocation']);

const REFUSED = new Set(['module-refused-page', 'pamt-add-failed']);

/** Throws Error at the first event after which the two hosts differ. Returns outcomes by result and reason. */
export async function compareHosts(
  scenario: Scenario,
  policy: PolicySet,
  events: readonly PlannedEvent[],
  prepare: (host: AbstractHost) => void = () => {},
): Promise<Map<string, number>> {
  const config: PlacedConfig = { ...abstractConfig({ ...scenario, policy }, events), scattered: SCATTERED };
  const real = new ScenarioHost(scenario, policy, scenario.seed);
  const lent = new LentPages(real.kernel, config.areas);
  await real.boot();
  const model = new AbstractHost(config);
  model.source = new Repeated(lent);
  prepare(model);
  const s = model.initial();
  const counts = new Map<string, number>();
  takeOwnPages(model, s, lent);
  compareAccounts(model, s, real, lent, 'after boot');
  for (const [number, event] of events.entries()) {
    lent.begin(number, ownerOf(event));
    const state = real.kernel.state;
    const outcomes = await playEvent(real, event);
    const { result, reason } = outcomes[0]!;
    const label = `event ${number} (${event.do} ${event.name}): ${result} ${reason?.code ?? ''}`;
    counts.set(`${result} ${reason?.code ?? ''}`, (counts.get(`${result} ${reason?.code ?? ''}`) ?? 0) + 1);
    model.source = new Repeated(lent, state !== real.kernel.state, reason?.code);
    takeOwnPages(model, s, lent);
    const fates = playAbstractly(model, s, event, label);
    const own = model.outcome!;
    // The first failure of initialisation is told by its stage, which the model has fewer of.
    const isOfStage = ENABLING.has(own.reason ?? '') && real.kernel.state === 'error';
    // With Dynamic PAMT memory is refused page by page or 2 MiB at a time, which the model does not tell apart.
    const isPage =
      REFUSED.has(own.reason ?? '') && REFUSED.has(reason?.code ?? '') && config.policy.dynamicPamt;
    const isSame = own.reason === (reason?.code ?? null) || isOfStage || isPage;
    if (own.result !== result || !isSame)
      throw new Error(`${label}, and abstractly ${own.result} ${own.reason ?? ''}`);
    const realFates = outcomes.slice(1).map((fate) => fate.event);
    if (fates.sort().join() !== realFates.sort().join())
      throw new Error(`${label} killed ${realFates.join(', ')}, and abstractly ${fates.join(', ')}`);
    takeOwnPages(model, s, lent);
    compareAccounts(model, s, real, lent, label);
    if (real.down !== null) break;
  }
  return counts;
}

/** The whole event, step by step. Returns the names of TDs that it killed besides. */
function playAbstractly(
  model: AbstractHost,
  s: AbstractState,
  { name }: PlannedEvent,
  label: string,
): string[] {
  const { config, layout } = model;
  const task = config.tasks.findIndex(({ events }, i) => events[s[layout.task(i, 0)]!]?.name === name);
  const fates: string[] = [];
  model.outcome = null;
  while (model.outcome === null) {
    if (model.ways(s, task) === 0) throw new Error(`${label}, and abstractly it waits`);
    try {
      model.take(s, task, 0);
    } catch (error) {
      throw new Error(`${label}: ${(error as Error).message}`, { cause: error });
    }
    fates.push(...model.fates.map((owner) => config.owners[owner]!.name));
  }
  return fates;
}

/** Refusals for want of pages that are not for a TD. */
const SHORT: Readonly<Record<string, LentUse>> = {
  'host-memory': 'host',
  'pamt-allocation': 'pamt',
  'table-allocation': 'pamt',
};

/** What a real kernel did in the current event, in the order of the abstract steps: control pages before memory. */
class Repeated implements PageSource {
  readonly #lent: LentPages;
  readonly #queues = new Map<LentUse, Request[]>();
  readonly #failedUse: LentUse | null;
  readonly #isEnabling: boolean;

  constructor(lent: LentPages, isEnabling = true, refusal?: string) {
    this.#lent = lent;
    this.#isEnabling = isEnabling;
    for (const request of lent.requests) {
      const queue = this.#queues.get(request.use) ?? [];
      this.#queues.set(request.use, queue);
      const last = queue.at(-1);
      if (last?.area === request.area)
        queue[queue.length - 1] = { ...request, pages: last.pages + request.pages };
      else queue.push(request);
    }
    const { failed } = lent;
    // Secure EPT pages are needed between pages of memory too.
    const ofTd = failed === null ? null : this.#queues.has('memory') ? 'memory' : failed.use;
    this.#failedUse = SHORT[refusal ?? ''] ?? ofTd;
  }

  next(use: LentUse): { readonly area: number; readonly pages: number } | 'enough' | 'nothing' {
    if (use === 'pamt' && !this.#isEnabling) return 'enough';
    const request = this.#queues.get(use)?.shift();
    if (request !== undefined && request.area !== null) return { area: request.area, pages: request.pages };
    return use === this.#failedUse ? 'nothing' : 'enough';
  }

  back(): readonly { readonly area: number; readonly pages: number }[] {
    return this.#lent.returned.filter(({ use, event }) => use === 'memory' && event !== this.#lent.event);
  }
}

/** Pages that the kernel takes and gives for itself are not the model's matter. */
function takeOwnPages(model: AbstractHost, s: AbstractState, lent: LentPages): void {
  const { layout } = model;
  lent
    .count(({ use }) => use === 'kernel')
    .forEach((pages, area) => {
      const at = layout.area(area, AREA.kept);
      s[layout.area(area, AREA.free)]! -= pages - s[at]!;
      s[at] = pages;
    });
}

function compareAccounts(
  model: AbstractHost,
  s: AbstractState,
  real: ScenarioHost,
  lent: LentPages,
  label: string,
): void {
  const { layout, config } = model;
  const same = (what: string, mine: unknown, its: unknown): void => {
    if (String(mine) !== String(its))
      throw new Error(`${label}: ${what} is ${String(its)}, and abstractly ${String(mine)}`);
  };
  const { kernel } = real;
  const areas = config.areas.map((_, area) => area);
  same(
    'PAMT',
    areas.map((area) => s[layout.area(area, AREA.pamt)]),
    lent.count(({ use }) => use === 'pamt'),
  );
  config.owners.forEach(({ name, isTd }, owner) => {
    const status = s[layout.owner(owner, OWNER.status)]!;
    if (isTd) {
      const td = real.tds.get(name);
      const its = td === undefined ? LIFE.none : td.dead === null ? LIFE.living : LIFE.dead;
      same(`the life of ${name}`, status, its);
    }
    const own = (use: LentUse): number[] => lent.count((one) => one.use === use && one.owner === name);
    const mine = (at: (owner: number, area: number) => number): number[] =>
      areas.map((area) => s[at(owner, area)]!);
    same(
      `memory of ${name}`,
      mine((o, a) => layout.memory(o, a)),
      own(isTd ? 'memory' : 'host'),
    );
    if (isTd)
      same(
        `control pages of ${name}`,
        mine((o, a) => layout.control(o, a)),
        own('control'),
      );
  });
  const isOnline = (area: number): boolean => s[layout.area(area, AREA.state)] === MEMORY.online;
  const zones = new Map<string, number>();
  for (const area of areas.filter(isOnline)) {
    const key = `node ${s[layout.area(area, AREA.node)]} ${ZONE_ORDER[s[layout.area(area, AREA.zone)]!]}`;
    zones.set(key, (zones.get(key) ?? 0) + s[layout.area(area, AREA.free)]!);
  }
  const mineFree = [...zones].map(([zone, free]) => `${zone}: ${free}`).sort();
  const itsFree = kernel.allocator
    .zones()
    .map(({ node, name, freePages }) => `node ${node} ${name}: ${freePages}`);
  same('free memory', mineFree.join('; '), itsFree.sort().join('; '));
  const used = config.keyIds - s[layout.host(HOST.keys)]!;
  if (kernel.keyIds.capacity > 0) same('KeyIDs in use', used, kernel.keyIds.current);
  const STATES = {
    uninitialized: TDX.uninitialized,
    initialized: TDX.initialized,
    error: TDX.error,
    disabled: TDX.disabled,
  };
  const tdx = s[layout.host(HOST.tdx)] === TDX.shutDown ? TDX.initialized : s[layout.host(HOST.tdx)];
  same('TDX', tdx, STATES[kernel.state]);
}

function ownerOf(event: PlannedEvent): string {
  if (event.do === 'td-start' || event.do === 'host-alloc') return event.name;
  return 'td' in event && event.td !== undefined ? event.td : '';
}
