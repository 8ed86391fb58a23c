/** KVM_CREATE_VCPU, in the kernel's order of checks. */
import { KernelError } from '../abi/errno.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import { argumentValue } from './argument.ts';
import { MAX_VCPU_IDS } from './kvm-options.ts';
import { RunPage } from './run-page.ts';
import { Vcpu } from './vcpu.ts';
import { VcpuFile } from './vcpu-file.ts';
import type { Vm } from './vm.ts';

/**
 * Throws EINVAL for an id or number of vCPUs beyond the limits, what the technology says, EEXIST for an id that is taken,
 * EMFILE, ENOMEM.
 * @internal
 */
export async function createVcpu(vm: Vm, arg: UserArg, task: Task): Promise<number> {
  const id = argumentValue(arg);
  if (id >= MAX_VCPU_IDS) {
    throw new KernelError('EINVAL', 'vcpu-id', `vCPU ids are below ${MAX_VCPU_IDS}`, { id });
  }
  await vm.lock.run(() => {
    if (vm.createdVcpus >= vm.maxVcpus) {
      throw new KernelError('EINVAL', 'vcpu-limit', `the VM has ${vm.maxVcpus} vCPUs and cannot have more`, {
        id,
        max: vm.maxVcpus,
      });
    }
    vm.createdVcpus++;
  });
  try {
    // The kernel creates it without the lock: others find that one is under way.
    await vm.kernel.schedule?.('vcpu-create');
    return await vm.lock.run(() => addVcpu(vm, id, task));
  } catch (error) {
    vm.createdVcpus--;
    throw error;
  }
}

function addVcpu(vm: Vm, id: number, task: Task): Promise<number> {
  vm.backend.checkCreateVcpu(id);
  if (vm.vcpus.has(id)) {
    throw new KernelError('EEXIST', 'vcpu-exists', `the VM has a vCPU ${id} already`, { id });
  }
  task.process.files.reserve();
  const vcpu = new Vcpu(vm, id, RunPage.allocate(vm.kernel, task.lp.node));
  try {
    vm.backend.createVcpu(vcpu);
  } catch (error) {
    vcpu.free();
    throw error;
  }
  vm.vcpus.set(id, vcpu);
  vm.get();
  return task.installFile(new VcpuFile(vcpu));
}
