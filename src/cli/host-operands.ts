/** What the verbs that take a HOST have in common. */

import { KernelError } from '../abi/errno.ts';
import { InputError } from '../abi/input-error.ts';
import type { KernelPolicy } from '../kernel/policy/kernel-policy.ts';
import { parseKnob } from '../kernel/policy/knobs.ts';
import { knobNamed } from '../kernel/sysfs-policy.ts';
import type { PlanOptions } from '../lab/plan/plan.ts';
import { findRelease, RELEASES } from '../module/releases.ts';
import { readHostFiles } from '../survey/read-host.ts';
import type { Survey } from '../survey/survey.ts';
import type { Options } from './verb.ts';

/** Reads the sources named on the command line into one survey. @internal */
export async function readHost(sources: readonly string[]): Promise<Survey> {
  const survey = await readHostFiles([...sources]);
  const { module } = survey.machine;
  if (module !== null) checkRelease(module, `${sources.join(' + ')}: module`);
  return survey;
}

function checkRelease(release: string, where: string): void {
  if (findRelease(release) !== undefined) return;
  const known = RELEASES.map(({ version }) => version).join(', ');
  throw new InputError(`${where}: there is no release '${release}'; known are ${known}`);
}

/** The choices on the command line. Throws InputError for a value that is none. @internal */
export function hostOptions(options: Options): PlanOptions {
  const holes = options.holes ?? 'memblock';
  if (holes !== 'memblock' && holes !== 'cmr') {
    throw new InputError(`--holes takes memblock or cmr, not '${String(holes)}'`);
  }
  const module = options.module as string | undefined;
  if (module !== undefined) checkRelease(module, '--module');
  return { holes, module, dynamicPamt: options.dynamicPamt === true };
}

/**
 * The kernel's policy: the plan's choices and every `--policy knob=value`. Throws InputError for a knob or value
 * that does not exist.
 * @internal
 */
export function kernelPolicy(options: Options, choices: PlanOptions): Partial<KernelPolicy> {
  const settings = (options.policy ?? []) as readonly string[];
  const policy: Partial<KernelPolicy> = { holes: choices.holes, dynamicPamt: choices.dynamicPamt };
  return Object.assign(policy, ...settings.map(parseSetting));
}

/** One `knob=value`. Throws InputError. @internal */
export function parseSetting(setting: string): Partial<KernelPolicy> {
  const { name = '', value = '' } = /^(?<name>[^=]*)(?:=(?<value>.*))?$/s.exec(setting)?.groups ?? {};
  const knob = knobNamed(name);
  if (knob === undefined)
    throw new InputError(
      `--policy: there is no knob '${name}'; \`tdxlab sysfs HOST /sys/firmware/tdx/policy\` lists them`,
    );
  try {
    return { [knob]: parseKnob(knob, value) };
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    throw new InputError(`--policy: ${error.reason.text}`);
  }
}
