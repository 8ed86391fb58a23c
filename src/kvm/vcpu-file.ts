/** A vCPU as user space has it open. */
import { KernelError } from '../abi/errno.ts';
import { KVM } from '../abi/kvm/ioctl.ts';
import type { FileObject } from '../kernel/process/file-object.ts';
import type { MemoryArea } from '../kernel/process/memory-area.ts';
import type { FileStat, UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import { KVM_STAT } from './kvm-stat.ts';
import type { Vcpu } from './vcpu.ts';
import { VCPU_IOCTLS } from './vcpu-ioctls.ts';
import { checkAlive } from './vm-file.ts';

/** @public */
export class VcpuFile implements FileObject {
  readonly kind = 'kvm-vcpu';
  readonly vcpu: Vcpu;

  /** Takes over the caller's reference to the VM. */
  constructor(vcpu: Vcpu) {
    this.vcpu = vcpu;
  }

  async ioctl(request: number, arg: UserArg, task: Task): Promise<number> {
    const { vcpu } = this;
    const { vm } = vcpu;
    checkAlive(vm, task);
    if (request === KVM.MEMORY_ENCRYPT_OP && vm.backend.vcpuMemoryEncryptOp !== undefined) {
      return vm.backend.vcpuMemoryEncryptOp(vcpu, task, arg);
    }
    return vcpu.mutex.run(() => {
      const handler = VCPU_IOCTLS.get(request);
      // The kernel's answer here is not ENOTTY.
      if (handler === undefined) {
        throw new KernelError('EINVAL', 'vcpu-ioctl', 'the vCPU has no such ioctl', { request });
      }
      return handler(vcpu, arg, task);
    });
  }

  mmap(area: MemoryArea): void {
    const { pfns } = this.vcpu.runPage;
    area.ops = {
      fault: (_area, index) => {
        const pfn = pfns[index];
        return pfn === undefined ? { signal: 'SIGBUS', reason: 'the vCPU has no such page' } : { pfn };
      },
    };
  }

  stat(): FileStat {
    return KVM_STAT;
  }

  release(): Promise<void> {
    return this.vcpu.vm.put();
  }
}
