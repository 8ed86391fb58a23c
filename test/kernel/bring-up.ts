/** The kernel on the tiny machine with the real module, and what a failed initialisation must leave behind. */
import { expect } from 'vitest';
import { HostKernel, type HostKernelOptions } from '../../src/kernel/host-kernel.ts';
import type { StageName } from '../../src/kernel/stages.ts';
import type { MachineDescription } from '../../src/machine/description.ts';
import { Machine } from '../../src/machine/machine.ts';
import { findRelease } from '../../src/module/releases.ts';
import { TdxModule } from '../../src/module/tdx-module.ts';
import { TINY } from './tiny-machine.ts';

export interface RealHost {
  readonly machine: Machine;
  readonly module: TdxModule;
  readonly kernel: HostKernel;
}

export function realHost(
  options: HostKernelOptions = {},
  change: Partial<MachineDescription> = {},
): RealHost {
  const description = { ...TINY, ...change };
  const machine = new Machine(description);
  const module = new TdxModule(machine, findRelease(description.module ?? '1.5.25')!);
  machine.seam.module = module;
  return { machine, module, kernel: new HostKernel(machine, options) };
}

/**
 * Checks the end state of an initialisation that failed in `stage`: the reason names it, later stages are skipped,
 * no memory is used but the VMXON regions, no CPU is in VMX operation, and no line belongs to a private KeyID.
 */
export async function expectCleanFailure({ machine, kernel }: RealHost, stage: StageName): Promise<void> {
  const failed = kernel.stages.findIndex(({ state }) => state === 'failed');
  expect(kernel.stages[failed]).toMatchObject({ name: stage, reason: { data: { stage } } });
  expect(kernel.stages.slice(0, failed).every(({ state }) => state === 'done')).toBe(true);
  expect(kernel.stages.slice(failed + 1).every(({ state }) => state === 'skipped')).toBe(true);
  expect(kernel.state).toBe('error');
  expect([kernel.tdmrs, kernel.memlist, kernel.enabled]).toEqual([[], [], null]);
  expect(kernel.log.entries.at(-1)!.text).toMatch(/^TDX-Module initialization failed \(-\d+\)$/);
  kernel.allocator.audit();
  const regions = kernel.cpus.filter((cpu) => cpu.vmxonRegionPfn !== null).length;
  expect(kernel.allocator.accounts().reduce((sum, { used }) => sum + used, 0)).toBe(regions);
  expect(machine.lps.some((lp) => lp.vmxOperation || lp.cr4Vmxe)).toBe(false);
  expect(kernel.cpus.some((cpu) => cpu.vmxRefs > 0)).toBe(false);
  expect(machine.memory.claimedRanges().filter(({ keyId }) => machine.isPrivateKeyId(keyId))).toEqual([]);
  expect(machine.packages.every(({ cache }) => cache.dirtyPages === 0) || !reached(kernel, 'config')).toBe(
    true,
  );
  await expect(kernel.enableTdx()).rejects.toMatchObject({
    errno: 'EINVAL',
    reason: { code: 'tdx-failed-before' },
  });
}

function reached(kernel: HostKernel, stage: StageName): boolean {
  return kernel.stages.find(({ name }) => name === stage)!.state === 'done';
}
