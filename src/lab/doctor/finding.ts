/** What a stage of a host's bring-up is found to be. */
import type { Fact } from '../../survey/live/host-facts.ts';
import { explainLogLine, LOG_LINES } from '../explain/log-line.ts';

/** @public */
export type StageStatus = 'pass' | 'fail' | 'unknown' | 'not-applicable';

/** One thing that was looked at: a file or device, and what it said. @public */
export interface Looked {
  readonly where: string;
  readonly value: string;
}

/** @public */
export interface Finding {
  readonly status: StageStatus;
  /** The finding in a few words, without a full stop. */
  readonly says: string;
  readonly looked: readonly Looked[];
  /** Of a failure: what brings it about, and what to do. One sentence each. */
  readonly cause?: string;
  readonly remedy?: string;
  /** Of something unknown: what would make it known. */
  readonly toKnow?: string;
  /** Worth knowing though nothing is wrong. */
  readonly remarks?: readonly string[];
  /** It only follows from the stages before: while one of them has not passed, it says nothing of its own. */
  readonly follows?: true;
}

/** Cause and remedy of a failure. @internal */
export interface Advice {
  readonly cause: string;
  readonly remedy: string;
}

/** @internal */
export function pass(says: string, looked: readonly Looked[], remarks: readonly string[] = []): Finding {
  return { status: 'pass', says, looked, ...(remarks.length === 0 ? {} : { remarks }) };
}

/** @internal */
export function fail(says: string, { cause, remedy }: Advice, looked: readonly Looked[]): Finding {
  return { status: 'fail', says, looked, cause, remedy };
}

/** @internal */
export function unknown(says: string, toKnow: string, looked: readonly Looked[]): Finding {
  return { status: 'unknown', says, looked, toKnow };
}

/** @internal */
export function notApplicable(says: string, looked: readonly Looked[] = []): Finding {
  return { status: 'not-applicable', says, looked };
}

/** Marks a finding as one that only follows from the stages before. @internal */
export function following(finding: Finding): Finding {
  return { ...finding, follows: true };
}

/** A fact as something that was looked at; `show` puts its value in words. @internal */
export function look<T>(fact: Fact<T>, show: (value: T) => string = String): Looked {
  const value = fact.state === 'read' ? show(fact.value) : `not known: ${fact.why}`;
  return { where: fact.source, value };
}

/** @internal */
export function valueIn<T>(fact: Fact<T>): T | undefined {
  return fact.state === 'read' ? fact.value : undefined;
}

/** What would make something known, of the facts that would tell and were not read. @internal */
export function howToKnow(facts: readonly Fact<unknown>[]): string {
  const sources = (state: Fact<unknown>['state']): string =>
    facts
      .filter((fact) => fact.state === state)
      .map(({ source }) => source)
      .join(', ');
  const [denied, absent, failed] = [sources('denied'), sources('absent'), sources('failed')];
  if (denied !== '') return `Run it (or collect) as root, which may read ${denied}.`;
  if (failed !== '') return `A whole and undamaged ${failed} would tell.`;
  return absent === ''
    ? 'The log of this boot from its start would tell.'
    : `One of these would tell: ${absent}.`;
}

/** The advice that `explain` gives on this kind of log line. Throws for a kind without any. @internal */
export function adviceOn(kind: string): Advice {
  const found = LOG_LINES.find(({ name, cases }) => name === kind && cases.length > 0)?.cases[0];
  if (found === undefined) throw new Error(`no advice on log lines of the kind '${kind}'`);
  return found;
}

/** The advice that `explain` gives on this very line: its leaf with its status first, then the kind of line. @internal */
export function adviceOnLine(line: string): Advice | undefined {
  const said = explainLogLine(line);
  if (said === undefined) return undefined;
  const cases = [said, ...said.parts].flatMap((part) => part.cases);
  return cases[0];
}
