/** The ioctls of a VM by request. */
import { KernelError } from '../abi/errno.ts';
import { KVM } from '../abi/kvm/ioctl.ts';
import { KVM_CREATE_GUEST_MEMFD } from '../abi/kvm/structs.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import { argumentValue } from './argument.ts';
import { checkExtension } from './capabilities.ts';
import { createVcpu } from './create-vcpu.ts';
import { enableCap } from './enable-cap.ts';
import { createGuestMemfd } from './guest-memfd/create.ts';
import type { Kvm } from './kvm.ts';
import { setMsrFilter } from './msr-filter.ts';
import { setMemoryAttributes } from './set-attributes.ts';
import { setUserMemoryRegion, setUserMemoryRegion2 } from './set-memory-region.ts';
import { setVmTscKhz } from './tsc.ts';
import type { Vm } from './vm.ts';

/** @internal */
export type VmIoctl = (vm: Vm, arg: UserArg, task: Task, kvm: Kvm) => number | Promise<number>;

/** @internal */
export const VM_IOCTLS: ReadonlyMap<number, VmIoctl> = new Map<number, VmIoctl>([
  [KVM.CHECK_EXTENSION, (vm, arg, _task, kvm) => checkExtension(kvm, vm, argumentValue(arg))],
  [KVM.CREATE_VCPU, createVcpu],
  [KVM.ENABLE_CAP, enableCap],
  [KVM.SET_USER_MEMORY_REGION, setUserMemoryRegion],
  [KVM.SET_USER_MEMORY_REGION2, setUserMemoryRegion2],
  [KVM.SET_MEMORY_ATTRIBUTES, setMemoryAttributes],
  [
    KVM.CREATE_GUEST_MEMFD,
    async (vm, arg, task) =>
      createGuestMemfd(
        vm,
        task,
        KVM_CREATE_GUEST_MEMFD.decode(await task.copyIn(arg, KVM_CREATE_GUEST_MEMFD.bytes)),
      ),
  ],
  [KVM.X86_SET_MSR_FILTER, setMsrFilter],
  [KVM.CREATE_IRQCHIP, (vm) => createIrqchip(vm)],
  [KVM.SET_TSC_KHZ, setVmTscKhz],
  [KVM.GET_TSC_KHZ, (vm) => vm.tscKhz],
  [
    KVM.MEMORY_ENCRYPT_OP,
    async (vm, arg, task, { technologies }) => {
      if (vm.backend.memoryEncryptOp !== undefined) return vm.backend.memoryEncryptOp(task, arg);
      for (const technology of technologies.values()) await technology.refuseEncryption?.(task, arg);
      throw new KernelError('ENOTTY', 'no-encryption', `VMs of type ${vm.type} have no encryption commands`);
    },
  ],
]);

function createIrqchip(vm: Vm): Promise<number> {
  return vm.lock.run(() => {
    if (vm.irqchip !== 'none') {
      throw new KernelError('EEXIST', 'irqchip-exists', 'the VM has an interrupt controller in the kernel');
    }
    if (vm.backend.protectsEoi === true) {
      throw new KernelError('ENOTTY', 'irqchip-protected-eoi', 'such a VM has its I/O APIC in user space');
    }
    if (vm.createdVcpus > 0) {
      throw new KernelError('EINVAL', 'irqchip-after-vcpus', 'interrupt controllers come before vCPUs');
    }
    vm.irqchip = 'kernel';
    return 0;
  });
}
