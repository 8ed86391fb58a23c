/** A host put together: the machine of a description, the module and P-SEAMLDR in its SEAM range, a kernel. */
import { PkvmHypervisor } from '../hypervisor/pkvm-hypervisor.ts';
import { HostKernel } from '../kernel/host-kernel.ts';
import type { KernelConfigHints } from '../kernel/kernel-config.ts';
import type { KernelPolicy } from '../kernel/policy/kernel-policy.ts';
import type { MachineDescription } from '../machine/description.ts';
import { Machine } from '../machine/machine.ts';
import { loadModule } from '../module/load-module.ts';
import { findRelease } from '../module/releases.ts';
import { SeamLoader } from '../module/seamldr.ts';
import { armFailure, type FailurePoint, type FailureWatch } from './fail-at.ts';

/** @public */
export interface HostOptions {
  /** Release to load instead of the description's. */
  readonly module?: string | undefined;
  readonly policy?: Partial<KernelPolicy>;
  readonly hints?: KernelConfigHints;
  /** Seed of the machine's entropy. */
  readonly seed?: bigint;
  /** What runs below the kernel; pKVM keeps the memory of guests from the kernel. */
  readonly hypervisor?: 'pkvm';
  /** A failure on purpose. */
  readonly failAt?: FailurePoint | undefined;
}

/** @public */
export interface Host {
  readonly machine: Machine;
  readonly kernel: HostKernel;
  /** The failure on purpose, where one was asked for. */
  readonly failure: FailureWatch | null;
}

/** Puts a host together, powered on and not booted. Throws for a release nobody knows. @public */
export function createHost(description: MachineDescription, options: HostOptions = {}): Host {
  const release = options.module ?? description.module;
  const machine = new Machine(
    { ...description, module: release },
    options.seed === undefined ? {} : { seed: options.seed },
  );
  if (release !== null) {
    const found = findRelease(release);
    if (found === undefined) throw new Error(`there is no module release '${release}'`);
    loadModule(machine, found);
  }
  const { seamLoader } = description;
  if (seamLoader !== null) {
    machine.seam.loader = new SeamLoader(machine, seamLoader.version, seamLoader.remainingUpdates);
  }
  if (options.hypervisor === 'pkvm') machine.hypervisor = new PkvmHypervisor(machine);
  const kernel = new HostKernel(machine, { policy: options.policy ?? {}, hints: options.hints ?? {} });
  const { failAt } = options;
  const failure = failAt === undefined ? null : armFailure(machine, kernel.allocator, failAt);
  return { machine, kernel, failure };
}
