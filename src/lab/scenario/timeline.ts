/** The events of a scenario in order of time: the timed ones, and the random ones that follow from the seed. */

import { Chance } from './chance.ts';
import type { EventSpec, RandomTime } from './language/event-schema.ts';
import type { Scenario } from './scenario.ts';

/** One event that will be played. Plain data: it can be sent to another thread, and left out of the list. @public */
export type PlannedEvent = EventSpec & {
  /** Virtual nanoseconds since the kernel booted. */
  readonly at: number;
  /** What it is called in outcomes and expectations. */
  readonly name: string;
  /** A number from 0 to 1 for choices that only the host of that time allows, such as which TD. */
  readonly draw: number;
};

/** Most events of one scenario. */
const MOST_EVENTS = 1_000_000;

/** The same scenario and seed give the same list. Events of the same time keep the scenario's order. @public */
export function timeline(
  scenario: Pick<Scenario, 'events' | 'arrivals' | 'seed'>,
  seed = scenario.seed,
): PlannedEvent[] {
  const events: PlannedEvent[] = [];
  const counts = new Map<string, number>();
  scenario.events.forEach((event, i) => {
    const chance = new Chance(seed, `event ${i}`);
    const { at = 0, every = 0, times = 1 } = event;
    for (let n = 0; n < times; n++) {
      const name = event.name ?? subject(event);
      add(events, event, at + n * every, every === 0 ? name : numbered(name, counts), chance);
    }
  });
  scenario.arrivals.forEach(({ every, from, until = Number.POSITIVE_INFINITY, most, choose }, i) => {
    const chance = new Chance(seed, `arrivals ${i}`);
    let at = from + draw(every, chance);
    for (let n = 0; n < most && at < until; n++) {
      const event = choose[Math.floor(chance.next() * choose.length)]!;
      add(events, event, at, numbered(event.name ?? subject(event), counts), chance);
      at += draw(every, chance);
    }
  });
  return events.sort((a, b) => a.at - b.at);
}

function add(events: PlannedEvent[], event: EventSpec, at: number, name: string, chance: Chance): void {
  if (events.length >= MOST_EVENTS) return;
  const own = chance.next();
  events.push({ ...event, at, name, draw: event.draw ?? own } as PlannedEvent);
  if (event.do !== 'td-start' || event.stay === undefined) return;
  const stay = typeof event.stay === 'number' ? event.stay : draw(event.stay, chance);
  events.push({ do: 'td-stop', td: name, at: at + stay, name: `td-stop ${name}`, draw: chance.next() });
}

/** What an event without a name is called: what it does, and to what. */
function subject(event: EventSpec): string {
  if ('memory' in event && typeof event.memory === 'string') return `${event.do} ${event.memory}`;
  if ('td' in event && event.td !== undefined) return `${event.do} ${event.td}`;
  return event.do;
}

/** `web` comes as `web-1`, `web-2`... when there are several. */
function numbered(name: string, counts: Map<string, number>): string {
  const count = (counts.get(name) ?? 0) + 1;
  counts.set(name, count);
  return `${name}-${count}`;
}

function draw({ poisson, uniform }: RandomTime, chance: Chance): number {
  if (uniform !== undefined) return Math.round(uniform[0] + chance.next() * (uniform[1] - uniform[0]));
  return Math.max(1, Math.round(-Math.log(1 - chance.next()) * poisson!));
}
