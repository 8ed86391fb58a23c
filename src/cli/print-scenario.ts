/** Prints lives and comparisons of scenarios. */
import { formatBytes } from '../abi/format-bytes.ts';
import { total } from '../lab/scenario/chart/comparison-svg.ts';
import type { ComparisonRow, PolicyComparison } from '../lab/scenario/compare.ts';
import type { Counts } from '../lab/scenario/engine/measures.ts';
import type { Outcome, Result } from '../lab/scenario/engine/outcome.ts';
import type { ScenarioRun } from '../lab/scenario/engine/run-scenario.ts';
import type { Judgement } from '../lab/scenario/expectations.ts';
import { formatDuration } from '../lab/scenario/language/units.ts';
import { formatCount } from './format.ts';
import { type Io, style } from './io.ts';
import { type Column, printTable, printWrapped } from './table.ts';

const COLOURS: Readonly<Record<Result, 'green' | 'yellow' | 'red'>> = {
  done: 'green',
  refused: 'yellow',
  killed: 'red',
  failed: 'red',
};
/** Width of the longest time, such as `29d 23h`. */
const TIME_WIDTH = 8;
const RESULT_WIDTH = 7;

/** One line of a life. @internal */
export function printOutcome(io: Io, outcome: Outcome): void {
  const { at, result, reason, tookNs } = outcome;
  const event = described(outcome);
  const time = style(io, 'dim', `[${formatDuration(at).padStart(TIME_WIDTH)}]`);
  const word = style(io, COLOURS[result], result.padEnd(RESULT_WIDTH));
  const took = result === 'done' && tookNs >= 1e6 ? ` (${formatDuration(tookNs)})` : '';
  printWrapped(io, reason === null ? `${event}${took}` : `${event}: ${reason.text}`, `${time} ${word} `);
}

/** What was done, and what it is called where that does not say it. */
function described({ do: kind, event }: Outcome): string {
  if (kind === 'td-fate') return `TD ${event}`;
  return event.startsWith(kind) ? event : `${kind} ${event}`;
}

/** What a life came to. @internal */
export function printEnd(io: Io, run: ScenarioRun, verdicts: readonly Judgement[]): void {
  const { measures, violations } = run;
  const line = (name: string, text: string): void => printWrapped(io, text, `${name.padEnd(12)}  `);
  io.out();
  line('TDs', `${measures.starts - total(measures.refused)} of ${measures.starts} came up`);
  line('refused', countsText(measures.refused));
  line('hindered', countsText(measures.hindered));
  line('killed', countsText(measures.killed));
  if (total(measures.failed) > 0) line('failed', countsText(measures.failed));
  line('unusable', `${formatBytes(measures.unusableBytes)} of memory that the host was refused`);
  line('PAMT', formatBytes(measures.pamtBytes));
  line(
    'first TD',
    measures.firstTdNs === null ? 'none came up' : `after ${formatDuration(measures.firstTdNs)}`,
  );
  line(
    'inconsistent',
    `${measures.inconsistent} starts refused although an equal one had succeeded and there was room`,
  );
  line('TDX', run.tdxOff === null ? run.tdx : `${run.tdx}: ${run.tdxOff.text}`);
  for (const { invariant, text, event } of violations)
    line(style(io, 'red', 'BROKEN'), `${invariant} after event ${event + 1}: ${text}`);
  printVerdicts(io, verdicts);
}

/** @internal */
export function printVerdicts(io: Io, verdicts: readonly Judgement[]): void {
  for (const { line, holds, expected, found } of verdicts) {
    const word = holds ? style(io, 'green', 'holds') : style(io, 'red', 'FAILS');
    const text = found === null ? expected : `${expected}; found: ${found}`;
    printWrapped(io, `${text} (line ${line})`, `${'expected'.padEnd(12)}  ${word} `);
  }
}

/** `keyids-exhausted 3, no-memory 1`; `none` for nothing. */
function countsText(counts: Counts): string {
  const entries = Object.entries(counts).sort(([, a], [, b]) => b - a);
  return entries.length === 0
    ? 'none'
    : entries.map(([code, count]) => `${code} ${formatCount(count)}`).join(', ');
}

const COLUMNS: readonly Column[] = [
  { heading: 'policy' },
  { heading: 'refused', align: 'right' },
  { heading: 'killed', align: 'right' },
  { heading: 'unusable', align: 'right' },
  { heading: 'PAMT', align: 'right' },
  { heading: 'first TD', align: 'right' },
  { heading: 'uneven', align: 'right' },
];
/** A policy made of knobs has a long name; its figures fit 80 columns all the same. */
const MOST_NAME = 22;
/** From this width on the reasons stand beside the figures. */
const WIDE = 130;

/** @internal */
export function printComparison(
  io: Io,
  { scenario, title, argument, seed, events, rows }: PolicyComparison,
): void {
  printWrapped(io, style(io, 'bold', title));
  if (argument !== '') printWrapped(io, argument.replaceAll(/\s+/g, ' '));
  io.out();
  printWrapped(io, `${scenario}: ${formatCount(events)} events, seed ${seed}, the same under every policy.`);
  io.out();
  const isWide = io.columns >= WIDE;
  const columns = isWide ? [...COLUMNS, { heading: 'why' }] : COLUMNS;
  printTable(
    io,
    columns,
    rows.map((row) => (isWide ? [...figures(row), whyText(row)] : figures(row))),
  );
  if (!isWide) printReasons(io, rows);
  io.out();
  printWrapped(
    io,
    'refused: starts of TDs, of all; unusable: memory the host was refused; uneven: starts refused although an equal one had succeeded and there was room.',
  );
  for (const { policy, verdicts, violations } of rows) {
    const wrong = verdicts.filter(({ holds }) => !holds);
    if (wrong.length > 0) {
      io.out();
      printWrapped(io, `Under ${policy}:`);
      printVerdicts(io, wrong);
    }
    for (const { invariant, text, event } of violations)
      printWrapped(
        io,
        `Under ${policy}: ${style(io, 'red', 'BROKEN')} ${invariant} after event ${event + 1}: ${text}`,
      );
  }
  const judged = rows.flatMap(({ verdicts }) => verdicts);
  if (judged.length === 0) return;
  io.out();
  printWrapped(io, `${judged.filter(({ holds }) => holds).length} of ${judged.length} expectations hold.`);
}

function figures({ policy, measures }: ComparisonRow): string[] {
  const refused = total(measures.refused);
  return [
    policy.length > MOST_NAME ? `${policy.slice(0, MOST_NAME - 1)}…` : policy,
    `${formatCount(refused)}/${formatCount(measures.starts)}`,
    formatCount(total(measures.killed)),
    measures.unusableBytes === 0 ? '-' : formatBytes(measures.unusableBytes),
    measures.pamtBytes === 0 ? '-' : formatBytes(measures.pamtBytes),
    measures.firstTdNs === null ? 'none' : formatDuration(measures.firstTdNs),
    formatCount(measures.inconsistent),
  ];
}

function whyText({ measures }: ComparisonRow): string {
  const parts = (['refused', 'hindered', 'killed', 'failed'] as const)
    .filter((kind) => total(measures[kind]) > 0)
    .map((kind) => `${kind}: ${countsText(measures[kind])}`);
  return parts.join('; ');
}

/** Policies with the same reasons are told of together. */
function printReasons(io: Io, rows: readonly ComparisonRow[]): void {
  const byWhy = new Map<string, string[]>();
  for (const row of rows) {
    const why = whyText(row);
    if (why !== '') byWhy.set(why, [...(byWhy.get(why) ?? []), row.policy]);
  }
  if (byWhy.size === 0) return;
  io.out();
  for (const [why, policies] of byWhy) {
    printWrapped(io, policies.join(', '));
    printWrapped(io, why, '  ');
  }
}
