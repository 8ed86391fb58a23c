/** How the kernel was built and started, as far as it matters to TDX. */
import type { E820Entry } from '../machine/description.ts';
import { parseBytes, parseMemmap } from './memory-options.ts';

/** What is known about the kernel from outside, such as from a real host's log. @public */
export interface KernelConfigHints {
  /** Hibernation is off for the whole boot; undefined where unknown. */
  readonly hibernationDisabled?: boolean;
  readonly commandLine?: string;
  /** Built with ACPI and suspend; default true. */
  readonly acpiSuspend?: boolean;
}

/** @public */
export interface KernelConfig {
  /** Hibernation could still be used: it conflicts with TDX. */
  readonly hibernation: boolean;
  /** Built with ACPI and suspend: S3 is then disabled when TDX is detected. */
  readonly acpiSuspend: boolean;
  /** CPUs brought up at boot (`maxcpus=`, `nr_cpus=`, `nosmp`). */
  readonly maxCpus: number;
  /** `use_tdx=on` or `=off` on the command line; undefined where absent. */
  readonly useTdx: boolean | undefined;
  /** Entries of `memmap=`, which the kernel believes over the firmware. */
  readonly memmap: readonly E820Entry[];
  /** `kernelcore=`: memory for pages that cannot move, in bytes; null where all memory is. */
  readonly kernelCoreBytes: number | null;
}

/**
 * The configuration the hints imply. Where nothing tells about hibernation it is taken to be off: a server
 * kernel set up for TDX has `nohibernate`.
 * @public
 */
export function kernelConfig(hints: KernelConfigHints = {}): KernelConfig {
  const options = (hints.commandLine ?? '').split(/\s+/);
  const values = (name: string): readonly string[] =>
    options.filter((option) => option.startsWith(`${name}=`)).map((option) => option.slice(name.length + 1));
  const value = (name: string): string | undefined => values(name).at(-1);
  const useTdx = value('use_tdx');
  return {
    hibernation: hints.hibernationDisabled === false && !options.includes('nohibernate'),
    acpiSuspend: hints.acpiSuspend ?? true,
    maxCpus: Math.min(
      cpuLimit(value('maxcpus')),
      cpuLimit(value('nr_cpus')),
      options.includes('nosmp') ? 1 : Infinity,
    ),
    useTdx: useTdx === 'on' ? true : useTdx === 'off' ? false : undefined,
    memmap: parseMemmap(values('memmap')),
    kernelCoreBytes: parseBytes(value('kernelcore') ?? '') ?? null,
  };
}

/** The boot CPU is always up: 0 turns the others off, as 1 does. */
function cpuLimit(value: string | undefined): number {
  return value !== undefined && /^\d+$/.test(value) ? Math.max(1, Number(value)) : Infinity;
}
