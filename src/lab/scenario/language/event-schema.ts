/** The events of a scenario: what each may say. */
import * as v from 'valibot';
import { Duration, Flag, Name, Period, Release, Share, SomeSize, whole, word } from './fields.ts';

/** A random time: exponential with a mean, or even between two bounds. @internal */
export const RandomTime = v.pipe(
  v.strictObject({
    poisson: v.optional(Period),
    uniform: v.optional(v.strictTuple([Duration, Period], 'must be two times such as [10m, 1h]')),
  }),
  v.check(
    ({ poisson, uniform }) => (poisson === undefined) !== (uniform === undefined),
    'must have either poisson with a mean time or uniform with two bounds',
  ),
  v.check(
    ({ uniform }) => uniform === undefined || uniform[0] <= uniform[1],
    'has its first bound above the second',
  ),
);

/** @public */
export type RandomTime = v.InferOutput<typeof RandomTime>;

const Node = v.optional(whole(0, 1023));
const Cpu = v.optional(whole(0, 8191));
/** A part of an area of memory; the whole of it where nothing else is said. */
const AREA = { memory: Name, offset: v.optional(SomeSize), size: v.optional(SomeSize) };
/** Where memory goes: `movable` can always be taken away again, and no TD gets it. */
const Zone = v.optional(word(['auto', 'kernel', 'movable']), 'auto');
const TD_MEMORY = { td: Name, size: SomeSize };
const CPUS = { cpu: Cpu, package: v.optional(whole(0, 7)) };

/** An event of this kind; when it happens is said of all alike. */
function kind<const K extends string, const E extends v.ObjectEntries>(name: K, entries: E) {
  return v.strictObject({
    do: v.literal(name),
    /** Time since the kernel booted. */
    at: v.optional(Duration),
    /** It comes back after this time, `times` times in all. */
    every: v.optional(Period),
    times: v.optional(whole(1, 100_000)),
    /** What expectations call it; a TD's name for events that start one. */
    name: v.optional(Name),
    /** Which of those that it may mean; from the seed where nothing is said. */
    draw: v.optional(Share),
    ...entries,
  });
}

/** @internal */
export const Event = v.variant('do', [
  kind('td-start', {
    name: Name,
    memory: SomeSize,
    vcpus: v.optional(whole(1, 64), 1),
    node: Node,
    /** It stops by itself after this time. */
    stay: v.optional(v.union([Period, RandomTime], 'must be a time, or poisson or uniform with times')),
  }),
  kind('td-stop', { td: Name }),
  kind('td-grow', TD_MEMORY),
  kind('td-convert', { ...TD_MEMORY, to: v.optional(word(['both', 'shared', 'private']), 'both') }),
  kind('balloon', TD_MEMORY),
  kind('host-alloc', {
    name: Name,
    size: v.optional(SomeSize),
    /** Of what is free, instead of a size. */
    share: v.optional(Share),
    node: Node,
    movable: v.optional(Flag, false),
    /** The allocation has the flag that opens memory set apart as non-TDX. */
    'non-tdx': v.optional(Flag, false),
  }),
  kind('host-free', { host: Name }),
  kind('fragment', { share: Share, node: Node }),
  kind('compact', {}),
  kind('hot-add', AREA),
  kind('hot-remove', {
    ...AREA,
    /** It goes without the kernel being asked first. */
    surprise: v.optional(Flag, false),
  }),
  kind('online', { ...AREA, zone: Zone }),
  kind('offline', AREA),
  kind('kmem-bind', { ...AREA, zone: Zone }),
  kind('kmem-unbind', AREA),
  kind('cpu-offline', CPUS),
  kind('cpu-online', CPUS),
  kind('use-tdx', {}),
  kind('kexec', { crash: v.optional(Flag, false) }),
  kind('suspend', { to: v.optional(word(['s3', 's2idle', 'hibernate']), 's3') }),
  kind('module-update', { release: Release }),
  kind('memory-error', {
    td: v.optional(Name),
    memory: v.optional(Name),
    offset: v.optional(SomeSize),
  }),
  kind('keyid-shortage', { leave: whole(0, 32_767) }),
  kind('set', {
    knob: v.string('must be the name of a knob'),
    value: v.union([v.string(), v.boolean()], 'must be a value of the knob'),
  }),
]);

/** One event as a scenario says it. @public */
export type EventSpec = v.InferOutput<typeof Event>;

/** @public */
export type EventKind = EventSpec['do'];

/** @public */
export const EVENT_KINDS: readonly EventKind[] = Event.options.map(({ entries }) => entries.do.literal);

/** Of what is alternative in an event: exactly one of these must be there. @internal */
export const ONE_OF: Partial<Record<EventKind, readonly string[]>> = {
  'host-alloc': ['size', 'share'],
  'cpu-offline': ['cpu', 'package'],
  'cpu-online': ['cpu', 'package'],
  'memory-error': ['td', 'memory'],
};
