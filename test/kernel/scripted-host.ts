/** A host on the tiny machine with the scripted module. */
import { HostKernel, type HostKernelOptions } from '../../src/kernel/host-kernel.ts';
import type { MachineDescription } from '../../src/machine/description.ts';
import { Machine } from '../../src/machine/machine.ts';
import { ScriptedModule } from './scripted-module.ts';
import { TINY } from './tiny-machine.ts';

export interface ScriptedHost {
  readonly machine: Machine;
  readonly module: ScriptedModule;
  readonly kernel: HostKernel;
  /** Text of every log line so far. */
  readonly lines: () => readonly string[];
}

export function scriptedHost(
  options: HostKernelOptions = {},
  change: Partial<MachineDescription> = {},
): ScriptedHost {
  const machine = new Machine({ ...TINY, ...change });
  const module = new ScriptedModule(machine.cmrs);
  machine.seam.module = module;
  const kernel = new HostKernel(machine, options);
  return { machine, module, kernel, lines: () => kernel.log.entries.map(({ text }) => text) };
}

/** The KernelError a promise rejects with, as errno and reason code. */
export async function refusalOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    const { errno, reason } = error as { errno?: string; reason?: { code: string } };
    if (errno === undefined || reason === undefined) throw error;
    return `${errno} ${reason.code}`;
  }
  return 'not refused';
}
