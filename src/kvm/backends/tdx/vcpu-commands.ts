/** KVM_MEMORY_ENCRYPT_OP on a TD's vCPU: INIT_VCPU, INIT_MEM_REGION, GET_CPUID (Linux host rules 2.2). */
import { KVM_TDX } from '../../../abi/kvm/tdx.ts';
import type { UserArg } from '../../../kernel/process/system-calls.ts';
import type { Task } from '../../../kernel/process/task.ts';
import { invalid, readCommand, withVmState } from './command.ts';
import { getCpuid } from './get-cpuid.ts';
import { initMemRegion } from './init-mem-region.ts';
import { initVcpu } from './init-vcpu.ts';
import type { TdxBackend } from './tdx-backend.ts';
import type { TdxVcpu } from './tdx-vcpu.ts';
import type { TrustDomain } from './trust-domain.ts';

/** @internal */
export async function vcpuCommand(
  backend: TdxBackend,
  tdxVcpu: TdxVcpu,
  task: Task,
  arg: UserArg,
): Promise<number> {
  const { td, vcpu } = tdxVcpu;
  const command = await readCommand(task, arg);
  const isKnown = await withVmState(td.vm, async () => {
    checkBeingBuilt(td);
    td.host.processors.load(tdxVcpu, task.cpu);
    vcpu.cpu = task.cpu;
    if (command.id === KVM_TDX.INIT_VCPU) await initVcpu(tdxVcpu, task, command);
    else if (command.id === KVM_TDX.INIT_MEM_REGION) await initMemRegion(backend, tdxVcpu, task, command);
    else return false;
    return true;
  });
  if (isKnown) return 0;
  return vcpu.mutex.run(async () => {
    checkBeingBuilt(td);
    if (command.id !== KVM_TDX.GET_CPUID) {
      throw invalid('tdx-command', `there is no TDX command ${command.id} for a vCPU`, { id: command.id });
    }
    await getCpuid(td, task, command.data);
    return 0;
  });
}

function checkBeingBuilt(td: TrustDomain): void {
  if (td.hasKeyId && td.state !== 'runnable') return;
  throw invalid('td-not-being-built', `the TD is ${td.state}; the command is for one being built`);
}
