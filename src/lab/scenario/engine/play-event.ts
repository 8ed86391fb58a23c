/** One event on the virtual clock: its handler is found, and whatever comes of it becomes outcomes. */
import { KernelError, type Reason } from '../../../abi/errno.ts';
import { CpuException } from '../../../machine/exceptions.ts';
import type { EventKind } from '../language/event-schema.ts';
import type { PlannedEvent } from '../timeline.ts';
import type { Handler } from './handlers/handler.ts';
import { HOST_EVENTS } from './handlers/host-events.ts';
import { MEMORY_EVENTS } from './handlers/memory-events.ts';
import { POWER_EVENTS } from './handlers/power-events.ts';
import { TD_EVENTS } from './handlers/td-events.ts';
import { EventEnd, type Outcome, type Result } from './outcome.ts';
import type { ScenarioHost } from './scenario-host.ts';

const HANDLERS: { readonly [K in EventKind]: Handler<K> } = {
  ...TD_EVENTS,
  ...HOST_EVENTS,
  ...MEMORY_EVENTS,
  ...POWER_EVENTS,
};

/**
 * Plays `event` and returns its outcome, with what it did to other TDs after it. A CPU exception takes the host down. An
 * Error of another kind is a bug and is thrown.
 * @public
 */
export async function playEvent(host: ScenarioHost, event: PlannedEvent): Promise<readonly Outcome[]> {
  const { clock } = host.host.machine;
  host.fates.length = 0;
  const began = clock.nowNs;
  const [result, reason] =
    host.down === null ? await play(host, event) : (['failed', hostDown(host.down)] as const);
  const { stopped } = host.kernel;
  if (stopped !== null) host.goDown(stopped);
  const { at, name, do: kind } = event;
  const own: Outcome = { at, event: name, do: kind, result, reason, tookNs: clock.nowNs - began };
  if (host.fates.length === 0) return [own];
  return [own, ...host.fates.map((fate): Outcome => ({ ...fate, at, do: 'td-fate', tookNs: 0 }))];
}

async function play(host: ScenarioHost, event: PlannedEvent): Promise<readonly [Result, Reason | null]> {
  try {
    await (HANDLERS[event.do] as Handler<EventKind>)(host, event);
    return ['done', null];
  } catch (error) {
    if (error instanceof KernelError) return ['refused', error.reason];
    if (error instanceof EventEnd) return [error.result, error.reason];
    if (!(error instanceof CpuException)) throw error;
    const reason = {
      code: 'machine-check',
      text: `machine check: ${error.message}`,
      data: { event: event.name },
    };
    host.goDown(reason);
    return ['failed', reason];
  }
}

function hostDown(why: Reason): Reason {
  return { code: 'host-down', text: `the host is no more: ${why.text}`, data: {} };
}
