/** What a scenario expects of a life, held against what came of it. */
import { formatBytes } from '../../abi/format-bytes.ts';
import { type Outcome, rootCause } from './engine/outcome.ts';
import type { ScenarioRun } from './engine/run-scenario.ts';
import type { Expectation } from './language/scenario-schema.ts';
import { formatDuration } from './language/units.ts';
import type { Scenario } from './scenario.ts';

/** @public */
export interface Judgement {
  /** Line of the scenario. */
  readonly line: number;
  readonly holds: boolean;
  /** What was expected. */
  readonly expected: string;
  /** What came instead; null where it holds. */
  readonly found: string | null;
}

/** Every expectation that concerns the policy of `run`. @public */
export function judge(scenario: Pick<Scenario, 'expect'>, run: ScenarioRun): Judgement[] {
  return scenario.expect.filter((one) => concerns(one, run.policy)).map((one) => verdict(one, run));
}

function concerns(expectation: Expectation, policy: string): boolean {
  const { under, 'not-under': notUnder } = expectation;
  return (under?.includes(policy) ?? true) && !(notUnder?.includes(policy) ?? false);
}

function verdict(one: Expectation & { readonly line: number }, run: ScenarioRun): Judgement {
  const found = ((): readonly [expected: string, found: string | null] => {
    if ('event' in one) return ofEvent(one, run);
    if ('count' in one) return ofCount(one, run);
    if ('bytes' in one) {
      const bytes = one.bytes === 'pamt' ? run.measures.pamtBytes : run.measures.unusableBytes;
      return within(`${one.bytes} bytes`, bytes, one, formatBytes);
    }
    if ('inconsistent' in one) {
      const { inconsistent } = run.measures;
      return within('inconsistent starts', inconsistent, { exactly: one.inconsistent }, String);
    }
    if ('tdx' in one) return [`TDX ${one.tdx} at the end`, run.tdx === one.tdx ? null : `it is ${run.tdx}`];
    const { firstTdNs } = run.measures;
    if (firstTdNs === null) return ['time to the first TD', 'no TD came up'];
    return within('time to the first TD', firstTdNs, one['first-td'], formatDuration);
  })();
  return { line: one.line, holds: found[1] === null, expected: found[0], found: found[1] };
}

function ofEvent(
  one: Extract<Expectation, { event: string }>,
  { outcomes }: ScenarioRun,
): readonly [string, string | null] {
  const because = one.reason === undefined ? '' : ` (${one.reason})`;
  const expected = `${one.event} ${one.is}${because}`;
  const own = outcomes.filter(({ event }) => event === one.event);
  if (own.length === 0) return [expected, 'it did not happen'];
  if (own.some((outcome) => matches(outcome, one.is, one.reason))) return [expected, null];
  return [expected, own.map(describe).join(', ')];
}

function ofCount(
  one: Extract<Expectation, { count: string }>,
  { outcomes }: ScenarioRun,
): readonly [string, string | null] {
  const counted = outcomes.filter(
    (outcome) =>
      matches(outcome, one.count, one.reason) &&
      (one.of === undefined ||
        outcome.do === one.of ||
        outcome.event === one.of ||
        outcome.event.startsWith(`${one.of}-`)),
  );
  const what = [one.count, one.of, one.reason === undefined ? undefined : `(${one.reason})`];
  return within(what.filter((part) => part !== undefined).join(' '), counted.length, one, String);
}

/** A reason is known by its own code and by that of its first cause. */
function matches({ result, reason }: Outcome, expected: string, code: string | undefined): boolean {
  if (result !== expected) return false;
  return code === undefined || (reason !== null && (reason.code === code || rootCause(reason).code === code));
}

function describe({ result, reason }: Outcome): string {
  return reason === null ? result : `${result} (${rootCause(reason).code})`;
}

interface Bounds {
  readonly exactly?: number | undefined;
  readonly least?: number | undefined;
  readonly most?: number | undefined;
}

function within(
  what: string,
  value: number,
  { exactly, least, most }: Bounds,
  format: (value: number) => string,
): readonly [string, string | null] {
  const bounds = [
    exactly === undefined ? undefined : `exactly ${format(exactly)}`,
    least === undefined ? undefined : `at least ${format(least)}`,
    most === undefined ? undefined : `at most ${format(most)}`,
  ];
  const holds =
    (exactly === undefined || value === exactly) &&
    (least === undefined || value >= least) &&
    (most === undefined || value <= most);
  const expected = `${what}: ${bounds.filter((bound) => bound !== undefined).join(', ')}`;
  return [expected, holds ? null : format(value)];
}
