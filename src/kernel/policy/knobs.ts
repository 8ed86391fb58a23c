/** Every knob with its values. */
import { KernelError } from '../../abi/errno.ts';
import { DEFAULT_POLICY, type KernelPolicy, type KnobName } from './kernel-policy.ts';
import type { Knob } from './knob.ts';
import { MEMORY_KNOBS } from './memory-knobs.ts';
import { MODULE_KNOBS } from './module-knobs.ts';

/** @public */
export const KNOBS: { readonly [K in KnobName]: Knob<KernelPolicy[K]> } = {
  ...MEMORY_KNOBS,
  ...MODULE_KNOBS,
};

/** Names of all knobs, in the order in which they are told of. @public */
export const KNOB_NAMES = Object.keys(DEFAULT_POLICY) as readonly KnobName[];

/** The values a knob can have, the default first; none for `tdxNodes`, which takes any list. @public */
export function knobValues<K extends KnobName>(knob: K): readonly KernelPolicy[K][] {
  return KNOBS[knob].values.map(({ value }) => value);
}

/** A knob's value as files and options have it: lists with commas. @public */
export function formatKnob<K extends KnobName>(value: KernelPolicy[K]): string {
  return Array.isArray(value) ? value.join(',') : String(value);
}

/** The value a text stands for. Throws EINVAL, naming the values there are. @public */
export function parseKnob<K extends KnobName>(knob: K, text: string): KernelPolicy[K] {
  if (knob === 'tdxNodes') return parseNodes(text) as KernelPolicy[K];
  const value = knobValues(knob).find((candidate) => String(candidate) === text);
  if (value === undefined) {
    const values = knobValues(knob).map(String);
    throw new KernelError('EINVAL', 'no-such-value', `${knob} takes ${values.join(', ')}, not '${text}'`, {
      knob,
      values,
    });
  }
  return value;
}

function parseNodes(text: string): readonly number[] {
  if (text === '') return DEFAULT_POLICY.tdxNodes;
  if (!/^\d{1,4}(,\d{1,4})*$/.test(text)) {
    throw new KernelError(
      'EINVAL',
      'no-such-value',
      `tdxNodes takes node numbers such as 0,2, not '${text}'`,
      {
        knob: 'tdxNodes',
      },
    );
  }
  return [...new Set(text.split(',').map(Number))].sort((a, b) => a - b);
}
