/** The abstract host of a scenario: its memory area by area, and a task for each subject of its events. */
import { type AddressRange, contains, GIB, MIB, overlaps, PAGE_2M, PAGE_4K } from '../../../abi/address.ts';
import { InputError } from '../../../abi/input-error.ts';
import { memblockFromFirmware } from '../../../kernel/memblock.ts';
import { DEFAULT_POLICY, type KernelPolicy } from '../../../kernel/policy/kernel-policy.ts';
import { knobValues, parseKnob } from '../../../kernel/policy/knobs.ts';
import { piecesByZone } from '../../../kernel/zone.ts';
import { findRelease } from '../../../module/releases.ts';
import type { Scenario } from '../../scenario/scenario.ts';
import { type PlannedEvent, timeline } from '../../scenario/timeline.ts';
import {
  type AbstractArea,
  type AbstractConfig,
  type AbstractEvent,
  type AbstractOwner,
  type AbstractTask,
  LIVE_KNOBS,
  type LiveKnob,
} from './config.ts';

/** An area with the addresses that it stands for. @internal */
export interface PlacedArea extends AbstractArea {
  readonly ranges: readonly AddressRange[];
}

/** @internal */
export interface PlacedConfig extends AbstractConfig {
  readonly areas: readonly PlacedArea[];
}

/** Counts are 32-bit numbers. */
const MOST_PAGES = 2 ** 31 - 1;
/** Secure EPT of a TD that lies in its first GiB: a table of each level. */
const FEW_TABLES = 3;

/** Throws InputError for events that have no steps here. @public */
export function abstractConfig(
  scenario: Scenario,
  events: readonly PlannedEvent[] = timeline(scenario),
): PlacedConfig {
  const areas = areasOf(scenario, events);
  const owners = ownersOf(events);
  const policy: KernelPolicy = { ...DEFAULT_POLICY, ...scenario.policy.knobs };
  const { keyIds, module } = scenario.machine;
  const release = findRelease(module ?? '');
  const tasks = new Map<string, AbstractTask['events'][number][]>();
  const context = { scenario, areas, owners, release };
  for (const event of events) {
    const task = subjectOf(event);
    const own = tasks.get(task) ?? [];
    tasks.set(task, own);
    for (const one of abstractEvents(event, context)) own.push({ ...one, name: event.name });
  }
  return {
    areas,
    owners,
    policy,
    tasks: [...tasks].map(([name, own]) => ({ name, events: own })),
    keyIds: Math.max(0, (keyIds?.tdx ?? 1) - 1),
    scattered: 0,
  };
}

interface Context {
  readonly scenario: Scenario;
  readonly areas: readonly PlacedArea[];
  readonly owners: readonly AbstractOwner[];
  readonly release: { readonly tdcsPages: number; readonly tdvpsPages: number } | undefined;
}

/** Events of the same subject come one after the other; all others take turns. */
function subjectOf(event: PlannedEvent): string {
  if ('memory' in event && typeof event.memory === 'string') return event.memory;
  if (event.do === 'td-start' || event.do === 'host-alloc') return event.name;
  if (event.do === 'host-free') return event.host;
  if ('td' in event && event.td !== undefined) return event.td;
  return event.do;
}

function abstractEvents(event: PlannedEvent, context: Context): readonly AbstractEvent[] {
  const { owners, release, areas, scenario } = context;
  const owner = (name: string): number => owners.findIndex((one) => one.name === name);
  switch (event.do) {
    case 'td-start': {
      const control = 1 + (release?.tdcsPages ?? 0) + event.vcpus * (release?.tdvpsPages ?? 0);
      const pages = event.memory / PAGE_4K;
      return [
        {
          do: 'td-start',
          td: owner(event.name),
          control: control + FEW_TABLES + tablesOf(pages),
          pages,
          node: event.node ?? 0,
        },
      ];
    }
    case 'td-stop':
      return [{ do: 'td-stop', td: owner(event.td) }];
    case 'td-grow': {
      const pages = event.size / PAGE_4K;
      return [{ do: 'td-grow', td: owner(event.td), control: tablesOf(pages), pages }];
    }
    case 'td-convert':
    case 'balloon': {
      const to = event.do === 'balloon' ? 'host' : event.to;
      return [{ do: 'td-convert', td: owner(event.td), control: 0, pages: event.size / PAGE_4K, to }];
    }
    case 'host-alloc': {
      const pages = event.size === undefined ? { share: event.share ?? 0 } : event.size / PAGE_4K;
      const node = event.node ?? null;
      return [{ do: 'host-alloc', owner: owner(event.name), pages, node, nonTdxOk: event['non-tdx'] }];
    }
    case 'host-free':
      return [{ do: 'host-free', owner: owner(event.host) }];
    case 'hot-remove':
      return [{ do: 'hot-remove', areas: partsOf(event, scenario, areas), surprise: event.surprise }];
    case 'hot-add':
    case 'online':
    case 'offline':
    case 'kmem-bind':
    case 'kmem-unbind':
      return [{ do: event.do, areas: partsOf(event, scenario, areas) }];
    case 'use-tdx':
      return [{ do: 'use-tdx' }];
    case 'keyid-shortage':
      return [{ do: 'keyid-shortage', leave: event.leave }];
    case 'kexec':
      return [{ do: 'kexec', crash: event.crash }];
    case 'set': {
      const knob = LIVE_KNOBS.find((live) => live === event.knob);
      if (knob === undefined)
        throw new InputError(
          `set ${event.knob}: an exhaustive search knows ${LIVE_KNOBS.join(', ')} as knobs that change`,
        );
      return [{ do: 'set', knob, value: knobIndex(knob, String(event.value)) }];
    }
    default:
      throw new InputError(`${event.do}: an exhaustive search has no steps for such events`);
  }
}

/** Secure EPT of so many pages more: a table for each GiB. */
function tablesOf(pages: number): number {
  return Math.floor((pages * PAGE_4K) / GIB);
}

function knobIndex(knob: LiveKnob, text: string): number {
  return (knobValues(knob) as readonly unknown[]).indexOf(parseKnob(knob, text));
}

/** Owners that begin some time, and those that events only ask for. Throws InputError for events that may mean several. */
function ownersOf(events: readonly PlannedEvent[]): readonly AbstractOwner[] {
  const owners = new Map<string, AbstractOwner>();
  for (const event of events) {
    if (event.do !== 'td-start' && event.do !== 'host-alloc') continue;
    const { name } = event;
    const isTd = event.do === 'td-start';
    owners.set(name, { name, isTd, movable: event.do === 'host-alloc' && event.movable });
  }
  const known = [...owners.keys()];
  for (const event of events) {
    const isTd = 'td' in event;
    const name = isTd ? event.td : event.do === 'host-free' ? event.host : undefined;
    if (name === undefined || owners.has(name)) continue;
    if (name === 'any' || known.some((one) => one.startsWith(`${name}-`)))
      throw new InputError(`${event.do} '${name}': an exhaustive search needs events that name one TD`);
    owners.set(name, { name, isTd, movable: false });
  }
  return [...owners.values()];
}

type AreaEvent = {
  readonly memory: string;
  readonly offset?: number | undefined;
  readonly size?: number | undefined;
};

function rangeOf({ memory, offset = 0, size }: AreaEvent, { areas }: Pick<Scenario, 'areas'>): AddressRange {
  const area = areas.get(memory)!;
  const start = area.start + offset;
  return { start, end: size === undefined ? area.end : Math.min(area.end, start + size) };
}

function partsOf(event: AreaEvent, scenario: Scenario, areas: readonly PlacedArea[]): readonly number[] {
  const range = rangeOf(event, scenario);
  return areas.flatMap(({ ranges }, i) => (ranges.every((one) => contains(range, one)) ? [i] : []));
}

/** Memory cut wherever its pages begin to differ: by node, zone, CMR, name, and the parts that events name. */
function areasOf(scenario: Scenario, events: readonly PlannedEvent[]): readonly PlacedArea[] {
  const { machine } = scenario;
  const online = memblockFromFirmware(machine.e820, machine.srat);
  const named = [...scenario.areas].map(([name, range]) => ({ name, ...range }));
  const cuts = new Set([MIB]);
  const cutAt = ({ start, end }: AddressRange): void => void cuts.add(start).add(end);
  machine.cmrs.forEach(cutAt);
  named.forEach(cutAt);
  for (const event of events) {
    if ('memory' in event && typeof event.memory === 'string') cutAt(rangeOf(event as AreaEvent, scenario));
  }
  const absent = named.filter((area) => !online.some((region) => overlaps(region, area)));
  const pieces = [
    ...online.map(({ node, kind, start, end }) => ({ node, kind, start, end, state: 'online' as const })),
    ...absent.map(({ node, start, end, state }) => ({
      node,
      kind: 'ram' as const,
      start,
      end,
      state: state === 'present' ? ('idle' as const) : ('absent' as const),
    })),
  ];
  const areas = new Map<string, PlacedArea>();
  for (const piece of pieces) {
    for (const range of cutRange(piece, cuts)) {
      for (const { name: zone, startPfn, endPfn } of piecesByZone(range)) {
        const part = { start: startPfn * PAGE_4K, end: endPfn * PAGE_4K };
        const convertible = machine.cmrs.some((cmr) => contains(cmr, part));
        // The kernel keeps memory below 1 MiB for itself.
        if (part.end <= MIB) continue;
        const label = named.find((area) => contains(area, part));
        const offset = label === undefined ? 0 : part.start - label.start;
        const name =
          label === undefined
            ? `node ${piece.node} ${zone}${convertible ? '' : ' outside CMRs'}`
            : `${label.name}${offset === 0 ? '' : `+${offset / PAGE_2M}`}`;
        const known = areas.get(name);
        const ranges = [...(known?.ranges ?? []), part];
        const pages = ranges.reduce((sum, { start, end }) => sum + (end - start) / PAGE_4K, 0);
        if (pages > MOST_PAGES)
          throw new InputError(`${name} has more than ${MOST_PAGES} pages: too large to search`);
        const { node, kind, state } = piece;
        areas.set(name, { name, node, zone, pages, convertible, kind, state, ranges });
      }
    }
  }
  return [...areas.values()];
}

function cutRange(range: AddressRange, cuts: ReadonlySet<number>): readonly AddressRange[] {
  const inside = [...cuts].filter((at) => range.start < at && at < range.end).sort((a, b) => a - b);
  const borders = [range.start, ...inside, range.end];
  return inside.length === 0
    ? [{ start: range.start, end: range.end }]
    : borders.slice(1).map((end, i) => ({ start: borders[i]!, end }));
}
