/** What one part of a scenario says of another must be there: areas, hosts' allocations, events, policies. */
import { LEAVES } from '../../../abi/leaves.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { findRelease, RELEASES } from '../../../module/releases.ts';
import { POLICY_SET_NAMES } from '../policy-sets.ts';
import { type EventSpec, ONE_OF } from './event-schema.ts';
import { orList } from './fields.ts';
import type { ScenarioText } from './scenario-schema.ts';
import type { PathStep, YamlText } from './yaml-text.ts';

/** Throws InputError for the first thing that is not there. @internal */
export function checkReferences(source: YamlText, said: ScenarioText): void {
  const areas = typeof said.host === 'string' ? [] : Object.keys(said.host.areas ?? {});
  const check = (event: EventSpec, path: readonly PathStep[]): void => checkEvent(source, event, path, areas);
  said.events.forEach((event, i) => {
    if (event.at === undefined) throw source.refusal(['events', i, 'at'], 'is missing: a time such as 90s');
    check(event, ['events', i]);
  });
  said.arrivals.forEach(({ choose }, i) => {
    choose.forEach((event, j) => {
      const path = ['arrivals', i, 'choose', j];
      const timed = (['at', 'every', 'times'] as const).find((key) => event[key] !== undefined);
      if (timed !== undefined)
        throw source.refusal([...path, timed], 'is no key here: arrivals have the time');
      check(event, path);
    });
  });
  const names = new Set(
    [...said.events, ...said.arrivals.flatMap(({ choose }) => choose)].map(({ name }) => name),
  );
  said.expect.forEach((one, i) => {
    if ('event' in one && !isNameOf(one.event, names))
      throw source.refusal(['expect', i, 'event'], `there is no event '${one.event}'`);
    for (const key of ['under', 'not-under'] as const) {
      const own = [...POLICY_SET_NAMES, 'scenario'];
      const at = one[key]?.findIndex((name) => !own.includes(name)) ?? -1;
      if (at >= 0) {
        const text = `there is no policy set '${one[key]![at]}'; known are ${own.join(', ')}`;
        throw source.refusal(['expect', i, key, at], text);
      }
    }
  });
  said.faults.forEach((fault, i) => {
    if ((fault.nth === undefined) === (fault.probability === undefined))
      throw source.refusal(['faults', i], 'must have either nth or probability');
    if ('seamcall' in fault) checkCall(source, fault.seamcall, fault.status, ['faults', i]);
  });
}

/** An event that is repeated has the names `name-1`, `name-2`... */
function isNameOf(name: string, names: ReadonlySet<string | undefined>): boolean {
  return names.has(name) || names.has(name.replace(/-\d+$/, ''));
}

function checkEvent(
  source: YamlText,
  event: EventSpec,
  path: readonly PathStep[],
  areas: readonly string[],
): void {
  const alternatives = ONE_OF[event.do];
  if (alternatives !== undefined) {
    const given = alternatives.filter((key) => (event as Record<string, unknown>)[key] !== undefined);
    if (given.length !== 1)
      throw source.refusal(path, `${event.do} must have either ${orList(alternatives)}`);
  }
  if ((event.times === undefined) !== (event.every === undefined))
    throw source.refusal(path, 'must have both `every` and `times`, or neither');
  if ('memory' in event && typeof event.memory === 'string' && !areas.includes(event.memory)) {
    const known = areas.length === 0 ? 'the host has none' : `known are ${areas.join(', ')}`;
    throw source.refusal([...path, 'memory'], `there is no area '${event.memory}'; ${known}`);
  }
  if (event.do === 'module-update' && findRelease(event.release) === undefined) {
    const known = RELEASES.map(({ version }) => version).join(', ');
    throw source.refusal([...path, 'release'], `there is no release '${event.release}'; known are ${known}`);
  }
}

function checkCall(
  source: YamlText,
  leaf: string,
  status: string | undefined,
  path: readonly PathStep[],
): void {
  if (leaf !== 'any' && leafNumber(leaf) === undefined)
    throw source.refusal(
      [...path, 'seamcall'],
      `'${leaf}' is no leaf of the host; one is TDH.MEM.PAGE.AUG, or any`,
    );
  if (status !== undefined && !(status in STATUS))
    throw source.refusal([...path, 'status'], `'${status}' is no status; one is TDX_OPERAND_BUSY`);
}

/** Number of a host leaf by its ABI name, or undefined. @internal */
export function leafNumber(name: string): number | undefined {
  return LEAVES.find((leaf) => leaf.side === 'host' && leaf.name === name.toUpperCase())?.number;
}
