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
 * ENOMEM, EMFILE.
 * @internal
 */
export async function createVcpu(vm: Vm, arg: UserArg, task: Task): Promise<number> {
  const id = argumentValue(arg);
  if (id >= MAX_VCPU_IDS) {
    throw new KernelError('EINVAL', 'vcpu-id', `vCPU ids are below ${MAX_VCPU_IDS}`, { id });
  }
  return vm.lock.run(async () => {
    if (vm.createdVcpus >= vm.maxVcpus) {
      throw new KernelError('EINVAL', 'vcpu-limit', `the VM has ${vm.maxVcpus} vCPUs and cannot have more`, {
        id,
        max: vm.maxVcpus,
      });
    }
    vm.backend.checkCreateVcpu(id);
    if (vm.vcpus.has(id)) {
      throw new KernelError('EEXIST', 'vcpu-exists', `the VM has a vCPU ${id} already`, { id });
    }
    task.process.files.reserve();
    const vcpu = new Vcpu(vm, id, RunPage.allocate(vm.kernel, task.lp.node));
    vm.createdVcpus++;
    try {
      await vm.backend.createVcpu(vcpu);
    } catch (error) {
      vm.createdVcpus--;
      vcpu.free();
      throw error;
    }
    vm.vcpus.set(id, vcpu);
    vm.get();
    try {
      return await task.installFile(new VcpuFile(vcpu));
    } catch (error) {
      // Another thread took the last descriptor.
      vm.vcpus.delete(id);
      vm.createdVcpus--;
      await vm.backend.freeVcpu(vcpu);
      vcpu.free();
      throw error;
    }
  });
}
