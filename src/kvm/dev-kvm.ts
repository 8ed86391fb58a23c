/** /dev/kvm: what KVM is and can do, and where VMs come from. */
import { PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { KVM_API_VERSION } from '../abi/kvm/capabilities.ts';
import { KVM } from '../abi/kvm/ioctl.ts';
import { KVM_DEVICE_ATTR } from '../abi/kvm/structs.ts';
import type { FileObject } from '../kernel/process/file-object.ts';
import type { FileStat, UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import { argumentValue, expectNone } from './argument.ts';
import { checkExtension } from './capabilities.ts';
import { supportedCpuid, writeCpuid } from './guest-cpuid.ts';
import type { Kvm } from './kvm.ts';
import { KVM_STAT } from './kvm-stat.ts';
import { RUN_PAGES } from './run-page.ts';
import { Vm } from './vm.ts';
import { VmFile } from './vm-file.ts';

/** @public */
export class KvmDevice implements FileObject {
  readonly kind = 'kvm';
  readonly #kvm: Kvm;

  constructor(kvm: Kvm) {
    this.#kvm = kvm;
  }

  async ioctl(request: number, arg: UserArg, task: Task): Promise<number> {
    switch (request) {
      case KVM.GET_API_VERSION:
        expectNone(arg);
        return KVM_API_VERSION;
      case KVM.CREATE_VM:
        return createVm(this.#kvm, argumentValue(arg), task);
      case KVM.CHECK_EXTENSION:
        return checkExtension(this.#kvm, null, argumentValue(arg));
      case KVM.GET_VCPU_MMAP_SIZE:
        expectNone(arg);
        return RUN_PAGES * PAGE_4K;
      case KVM.GET_SUPPORTED_CPUID:
        return writeCpuid(supportedCpuid(task.lp), arg, task);
      case KVM.GET_DEVICE_ATTR:
      case KVM.HAS_DEVICE_ATTR:
        return deviceAttribute(this.#kvm, request, arg, task);
      default:
        // The kernel's answer here is not ENOTTY.
        throw new KernelError('EINVAL', 'kvm-ioctl', '/dev/kvm has no such ioctl', { request });
    }
  }

  stat(): FileStat {
    return KVM_STAT;
  }

  async release(): Promise<void> {}
}

/** KVM_GET_DEVICE_ATTR and KVM_HAS_DEVICE_ATTR. Throws EFAULT, ENXIO for an attribute that there is not. */
async function deviceAttribute(kvm: Kvm, request: number, arg: UserArg, task: Task): Promise<number> {
  const { group, attr, addr } = KVM_DEVICE_ATTR.decode(await task.copyIn(arg, KVM_DEVICE_ATTR.bytes));
  for (const technology of kvm.technologies.values()) {
    const value = technology.deviceAttribute?.(group, attr);
    if (value === undefined) continue;
    if (request === KVM.GET_DEVICE_ATTR) {
      await task.copyOut(addr, new Uint8Array(BigUint64Array.of(value).buffer));
    }
    return 0;
  }
  throw new KernelError('ENXIO', 'kvm-attribute', '/dev/kvm has no such attribute', { group, attr });
}

/** KVM_CREATE_VM. Throws EMFILE, EINVAL for a type the host does not offer, and what the technology says. */
async function createVm(kvm: Kvm, type: number, task: Task): Promise<number> {
  const { process } = task;
  process.files.reserve();
  const technology = kvm.technologies.get(type);
  if (technology === undefined) throw unsupportedType(kvm, type);
  const vm = new Vm({ kernel: kvm.kernel, process, type, options: kvm.options });
  try {
    vm.backend = await technology.create(vm);
  } catch (error) {
    await vm.put();
    throw error;
  }
  vm.maxVcpus = Math.min(vm.maxVcpus, vm.backend.maxVcpus ?? vm.maxVcpus);
  return task.installFile(new VmFile(kvm, vm));
}

function unsupportedType(kvm: Kvm, type: number): KernelError {
  const why = kvm.unavailable.get(type);
  const data = { type, ...(why && { why }) };
  const text = why === undefined ? `KVM knows no VM type ${type}` : `no VMs of type ${type}: ${why.text}`;
  return new KernelError('EINVAL', 'vm-type', text, data);
}
