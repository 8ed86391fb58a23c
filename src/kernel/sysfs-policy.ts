/** The policy knobs as files: each may be written until initialisation has used it. */
import type { HostKernel } from './host-kernel.ts';
import type { KnobName } from './policy/kernel-policy.ts';
import { formatKnob, KNOB_NAMES, parseKnob } from './policy/knobs.ts';
import type { SysfsDirectory, SysfsFile } from './sysfs-tree.ts';

/** `dynamicPamt` as a file name: `dynamic_pamt`. */
function fileName(knob: string): string {
  return knob.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** The knob that a file or option of this name sets, or undefined. @public */
export function knobNamed(name: string): KnobName | undefined {
  return KNOB_NAMES.find(
    (knob) => knob === name || fileName(knob) === name || fileName(knob).replaceAll('_', '-') === name,
  );
}

/** @internal */
export function policyFiles(kernel: HostKernel): SysfsDirectory {
  return Object.fromEntries(
    KNOB_NAMES.map((knob): [string, SysfsFile] => [
      fileName(knob),
      {
        mode: 0o644,
        read: () => formatKnob(kernel.policy[knob]),
        write: (text) => kernel.setPolicy(knob, parseKnob(knob, text)),
      },
    ]),
  );
}
