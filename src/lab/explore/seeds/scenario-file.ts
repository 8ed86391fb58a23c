/** A list of events as a scenario file that repeats it: the scenario's own text with the events written out. */
import { existsSync } from 'node:fs';
import { dirname, relative, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import { exactDuration, exactSize } from '../../scenario/language/units.ts';
import { policySet } from '../../scenario/policy-sets.ts';
import type { PolicySet } from '../../scenario/scenario.ts';
import type { PlannedEvent } from '../../scenario/timeline.ts';
import type { ShrunkFailure } from './shrink-failure.ts';

/** Names that scenarios may give; others follow from the event. */
const NAME = /^[A-Za-z][\w.-]{0,63}$/;

/**
 * The text of a scenario that plays the life of `shrunk` again. `text` is the scenario it came from, `file` where that
 * lies, `folder` where the new one will lie: a host that is a file beside the old one is found from there too.
 * @public
 */
export function replayFile(
  { text, file }: { readonly text: string; readonly file: string },
  shrunk: ShrunkFailure,
  folder: string,
  policy?: PolicySet,
): string {
  const document = parseDocument(text);
  const { failure, seed, events, faults } = shrunk;
  if (policy !== undefined) {
    const isKnown = policySet(policy.name) !== undefined;
    document.set('policy', isKnown ? policy.name : document.createNode(policy.knobs));
  }
  document.set('seed', seed);
  for (const path of [['host'], ['host', 'like']]) {
    const host: unknown = document.getIn(path);
    const beside = typeof host === 'string' ? resolve(dirname(file), host) : null;
    if (beside !== null && existsSync(beside)) document.setIn(path, relative(folder, beside) || beside);
  }
  document.delete('arrivals');
  document.set('events', document.createNode(events.map(eventText)));
  if (faults.length > 0) document.set('faults', document.createNode(faults));
  else document.delete('faults');
  const kept = (document.toJS() as { expect?: unknown[] }).expect ?? [];
  const own = failure.line === null ? undefined : kept[expectationAt(text, failure.line)];
  if (own === undefined) document.delete('expect');
  else document.set('expect', document.createNode([own]));
  document.commentBefore = ` Found by tdxlab explore with seed ${seed}: ${failure.kind} ${failure.name}\n ${failure.text.replace(/\s+/g, ' ')}`;
  return document.toString({ lineWidth: 110 });
}

/** An event in the words of a scenario. */
function eventText(event: PlannedEvent): Record<string, unknown> {
  const { at, do: kind, name, draw, ...rest } = event;
  const { every: _, times: __, stay: ___, ...own } = rest as Record<string, unknown>;
  const words = Object.entries(own)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => [key, isSize(key, value) ? exactSize(value) : value]);
  return {
    at: exactDuration(at),
    do: kind,
    ...(NAME.test(name) ? { name } : {}),
    ...Object.fromEntries(words),
    draw,
  };
}

/** Sizes are numbers in events that were read; the memory that an event is about has a name. */
function isSize(key: string, value: unknown): value is number {
  return typeof value === 'number' && (key === 'size' || key === 'offset' || key === 'memory');
}

/** Which of the expectations begins in this line, from 0. */
function expectationAt(text: string, line: number): number {
  const items = parseDocument(text).get('expect') as { items?: { range?: readonly number[] }[] } | undefined;
  const lineOf = (offset: number): number => text.slice(0, offset).split('\n').length;
  return (items?.items ?? []).findIndex(({ range }) => range !== undefined && lineOf(range[0]!) === line);
}
