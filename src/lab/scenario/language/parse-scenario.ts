/** Reads a scenario; what is wrong with it is said with file, line, column and key. */
import * as v from 'valibot';
import { KernelError } from '../../../abi/errno.ts';
import type { KernelPolicy } from '../../../kernel/policy/kernel-policy.ts';
import { KNOB_NAMES, parseKnob } from '../../../kernel/policy/knobs.ts';
import { knobNamed } from '../../../kernel/sysfs-policy.ts';
import { POLICY_SET_NAMES, POLICY_SETS, policySet } from '../policy-sets.ts';
import type { PolicySet, Scenario } from '../scenario.ts';
import { checkReferences } from './check-references.ts';
import { describeHost } from './describe-host.ts';
import { EVENT_KINDS } from './event-schema.ts';
import { orList } from './fields.ts';
import { ScenarioText } from './scenario-schema.ts';
import { type PathStep, YamlText } from './yaml-text.ts';

/**
 * The scenario that `text` describes. `file` is named in errors, and hosts that are files are looked for beside it.
 * Throws InputError with file, line, column and key, and what was expected.
 * @public
 */
export async function parseScenario(text: string, file: string): Promise<Scenario> {
  const source = new YamlText(file, text);
  const result = v.safeParse(ScenarioText, source.value, { abortPipeEarly: true });
  if (!result.success) throw refusal(source, result.issues);
  const said = result.output;
  checkReferences(source, said);
  const host = await describeHost(source, said.host);
  return {
    ...host,
    name: said.name,
    title: said.title,
    argument: (said.argument ?? '').trim(),
    policy: policyOf(source, said.policy),
    policies:
      said.policies === undefined
        ? POLICY_SETS
        : said.policies.map((name, i) => named(source, ['policies', i], name)),
    seed: said.seed,
    events: said.events,
    arrivals: said.arrivals,
    faults: said.faults,
    expect: said.expect.map((one, i) => ({ ...one, line: source.lineOf(['expect', i]) })),
  };
}

/** The issue that lies deepest is the one that was meant: a union tells first that nothing fits. */
function refusal(source: YamlText, issues: readonly v.BaseIssue<unknown>[]): Error {
  const { path, issue } = deepest(issues, []);
  return source.refusal(path, complaint(issue, path));
}

interface Found {
  readonly path: readonly PathStep[];
  readonly issue: v.BaseIssue<unknown>;
}

function deepest(issues: readonly v.BaseIssue<unknown>[], above: readonly PathStep[]): Found {
  const found = issues.map((issue): Found => {
    const own = [...above, ...(issue.path ?? []).map(({ key }) => key as PathStep)];
    // Of the shapes that a union allows, the one that got furthest; a shape that is none at all says nothing.
    const inner = (issue.issues ?? []).filter(
      (one) => (one.path?.length ?? 0) > 0 && one.type !== 'literal' && saysMore(one),
    );
    return issue.type !== 'union' || inner.length === 0 ? { path: own, issue } : deepest(inner, own);
  });
  return found.reduce((best, one) => (rank(one) > rank(best) ? one : best));
}

/** A key that is not known explains one that is missing. */
function rank({ path, issue }: Found): number {
  return 2 * path.length + (issue.expected === 'never' ? 1 : 0);
}

/** In a union of objects a key that one of them does not know or lacks says only that another was meant. */
function saysMore({ expected, received }: v.BaseIssue<unknown>): boolean {
  return expected !== 'never' && received !== 'undefined';
}

function complaint(issue: v.BaseIssue<unknown>, path: readonly PathStep[]): string {
  const { kind, type, expected, received, message, input } = issue;
  if (type === 'variant') {
    if (path.at(-1) !== 'do') return 'must be an event with the key `do`';
    const what = received === 'undefined' ? 'is missing: it' : `cannot be ${received}: it`;
    return `${what} must be ${orList(EVENT_KINDS)}`;
  }
  if (expected === 'never') return 'is no key here';
  if (kind === 'schema' && received === 'undefined') return 'is missing';
  if (kind === 'schema' && type === 'strict_object') return `must be keys with values, not ${received}`;
  if (kind === 'schema' && /^Invalid type/.test(message)) return `must be ${expected}, not ${received}`;
  return typeof input === 'string' || typeof input === 'number'
    ? `${message}, not ${JSON.stringify(input)}`
    : message;
}

function named(source: YamlText, path: readonly PathStep[], name: string): PolicySet {
  const set = policySet(name);
  if (set !== undefined) return set;
  throw source.refusal(path, `there is no policy set '${name}'; known are ${POLICY_SET_NAMES.join(', ')}`);
}

function policyOf(source: YamlText, said: ScenarioText['policy']): PolicySet {
  if (typeof said === 'string') return named(source, ['policy'], said);
  const knobs: Partial<KernelPolicy> = {};
  for (const [name, value] of Object.entries(said))
    Object.assign(knobs, parseSetting(source, ['policy', name], name, value));
  const title = Object.entries(said)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');
  return { name: 'scenario', title, knobs };
}

/** One knob with its value. @internal */
export function parseSetting(
  source: YamlText,
  path: readonly PathStep[],
  name: string,
  value: string | boolean,
): Partial<KernelPolicy> {
  const knob = knobNamed(name);
  if (knob === undefined) throw source.refusal(path, `is no knob; known are ${KNOB_NAMES.join(', ')}`);
  try {
    return { [knob]: parseKnob(knob, String(value)) };
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    throw source.refusal(path, error.reason.text);
  }
}
