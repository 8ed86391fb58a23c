/** What the verbs that play scenarios have in common. */
import { InputError } from '../abi/input-error.ts';
import type { KernelPolicy } from '../kernel/policy/kernel-policy.ts';
import { POLICY_SET_NAMES, policySet } from '../lab/scenario/policy-sets.ts';
import type { PolicySet } from '../lab/scenario/scenario.ts';
import { parseSetting } from './host-operands.ts';
import type { Options } from './verb.ts';

/** `--seed`, or undefined. Throws InputError. @internal */
export function seedOption({ seed }: Options): number | undefined {
  if (seed === undefined) return undefined;
  if (!/^\d{1,15}$/.test(String(seed)))
    throw new InputError(`--seed takes a whole number, not '${String(seed)}'`);
  return Number(seed);
}

/** A policy set by name, or one that `knob=value,knob=value` makes. Throws InputError. @internal */
export function parsePolicy(text: string): PolicySet {
  const set = policySet(text);
  if (set !== undefined) return set;
  if (!text.includes('='))
    throw new InputError(
      `--policy: there is no policy set '${text}'; known are ${POLICY_SET_NAMES.join(', ')}, or knob=value`,
    );
  const knobs: Partial<KernelPolicy> = Object.assign({}, ...text.split(/,(?=\w+=)/).map(parseSetting));
  return { name: text, title: text, knobs };
}
