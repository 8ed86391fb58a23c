/** A scenario: a host, a policy, events in time, chance from a seed, faults, and what is expected of it. */
import * as v from 'valibot';
import { Event, RandomTime } from './event-schema.ts';
import { Duration, Line, list, Name, Period, Share, SomeSize, whole, word } from './fields.ts';
import { Host } from './host-schema.ts';

const Arrivals = v.strictObject({
  /** Time between two. */
  every: RandomTime,
  from: v.optional(Duration, '0s'),
  until: v.optional(Period),
  most: v.optional(whole(1, 1_000_000), 1000),
  /** Each is one of these, drawn evenly. */
  choose: v.pipe(list(Event, 100), v.minLength(1, 'must have an event')),
});

const HITS = {
  /** Only this one, counted from 1. */
  nth: v.optional(whole(1, 1_000_000_000)),
  /** Each with this probability. */
  probability: v.optional(Share),
};

const Fault = v.union(
  [
    v.strictObject({ seamcall: Line, status: v.optional(Line), ...HITS }),
    v.strictObject({ allocation: Line, ...HITS }),
    v.strictObject({ callback: word(['memory-online', 'cpu-offline']), ...HITS }),
  ],
  'must be a seamcall (a leaf or any), an allocation (a purpose or any) or a callback (memory-online, cpu-offline), with nth or probability',
);

const BOUNDS = {
  exactly: v.optional(whole(0, 1_000_000_000)),
  least: v.optional(whole(0, 1_000_000_000)),
  most: v.optional(whole(0, 1_000_000_000)),
};
const SIZE_BOUNDS = {
  exactly: v.optional(v.union([SomeSize, v.literal(0)], 'must be a size or 0')),
  least: v.optional(SomeSize),
  most: v.optional(v.union([SomeSize, v.literal(0)], 'must be a size or 0')),
};
/** Names of the policies it is expected under; under all where nothing is said. */
const UNDER = {
  under: v.optional(list(Line, 100)),
  'not-under': v.optional(list(Line, 100)),
};

const RESULT = word(['done', 'refused', 'killed', 'failed']);

const Expectation = v.union(
  [
    v.strictObject({ event: Name, is: RESULT, reason: v.optional(Line), ...UNDER }),
    v.strictObject({ count: RESULT, of: v.optional(Line), reason: v.optional(Line), ...BOUNDS, ...UNDER }),
    v.strictObject({ bytes: word(['pamt', 'unusable']), ...SIZE_BOUNDS, ...UNDER }),
    v.strictObject({ inconsistent: whole(0, 1_000_000_000), ...UNDER }),
    v.strictObject({
      tdx: word(['initialized', 'uninitialized', 'error']),
      ...UNDER,
    }),
    v.strictObject({
      'first-td': v.strictObject({ least: v.optional(Period), most: v.optional(Period) }),
      ...UNDER,
    }),
  ],
  'must say what of is expected: event with is, count with exactly, least or most, bytes, inconsistent, tdx, or first-td',
);

/** @internal */
export const ScenarioText = v.strictObject({
  name: Name,
  title: Line,
  /** What of the debate it restates. */
  argument: v.optional(Line),
  host: Host,
  /** Name of a policy set, or knobs that differ from the default. */
  policy: v.optional(
    v.union(
      [Line, v.record(v.string(), v.union([v.string(), v.boolean()]))],
      'must be the name of a policy set, or knobs with their values',
    ),
    'linux-7.2',
  ),
  /** Policy sets that compare takes; all where nothing is said. */
  policies: v.optional(list(Line, 100)),
  seed: v.optional(whole(0, Number.MAX_SAFE_INTEGER), 1),
  events: v.optional(list(Event), []),
  arrivals: v.optional(list(Arrivals, 100), []),
  faults: v.optional(list(Fault, 100), []),
  expect: v.optional(list(Expectation, 1000), []),
});

/** @internal */
export type ScenarioText = v.InferOutput<typeof ScenarioText>;
/** @public */
export type ArrivalSpec = v.InferOutput<typeof Arrivals>;
/** @public */
export type FaultSpec = v.InferOutput<typeof Fault>;
/** @public */
export type Expectation = v.InferOutput<typeof Expectation>;
