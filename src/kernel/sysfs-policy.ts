/** The policy knobs as files: each may be written until initialisation has used it. */
import { KernelError } from '../abi/errno.ts';
import type { HostKernel } from './host-kernel.ts';
import { type KernelPolicy, POLICY_VALUES } from './policy.ts';
import type { SysfsDirectory, SysfsFile } from './sysfs-tree.ts';

/** `dynamicPamt` as a file name: `dynamic_pamt`. */
function fileName(knob: string): string {
  return knob.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** The knob that a file or option of this name sets, or undefined. @public */
export function knobNamed(name: string): keyof KernelPolicy | undefined {
  const knobs = Object.keys(POLICY_VALUES) as (keyof KernelPolicy)[];
  return knobs.find(
    (knob) => knob === name || fileName(knob) === name || fileName(knob).replaceAll('_', '-') === name,
  );
}

/** The value a text stands for. Throws EINVAL, naming the values there are. @public */
export function parseKnob<K extends keyof KernelPolicy>(knob: K, text: string): KernelPolicy[K] {
  const value = POLICY_VALUES[knob].find((candidate) => String(candidate) === text);
  if (value === undefined) {
    const values = POLICY_VALUES[knob].map(String);
    throw new KernelError('EINVAL', 'no-such-value', `${knob} takes ${values.join(', ')}, not '${text}'`, {
      knob,
      values,
    });
  }
  return value;
}

/** @internal */
export function policyFiles(kernel: HostKernel): SysfsDirectory {
  const knobs = Object.keys(POLICY_VALUES) as (keyof KernelPolicy)[];
  return Object.fromEntries(
    knobs.map((knob): [string, SysfsFile] => [
      fileName(knob),
      {
        mode: 0o644,
        read: () => String(kernel.policy[knob]),
        write: (text) => kernel.setPolicy(knob, parseKnob(knob, text)),
      },
    ]),
  );
}
