/** A VM as user space has it open. */
import { KernelError } from '../abi/errno.ts';
import type { FileObject } from '../kernel/process/file-object.ts';
import type { FileStat, UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import type { Kvm } from './kvm.ts';
import { KVM_STAT } from './kvm-stat.ts';
import type { Vm } from './vm.ts';
import { VM_IOCTLS } from './vm-ioctls.ts';

/** @public */
export class VmFile implements FileObject {
  readonly kind = 'kvm-vm';
  readonly vm: Vm;
  readonly #kvm: Kvm;

  /** Takes over the caller's reference to the VM. */
  constructor(kvm: Kvm, vm: Vm) {
    this.#kvm = kvm;
    this.vm = vm;
  }

  async ioctl(request: number, arg: UserArg, task: Task): Promise<number> {
    checkAlive(this.vm, task);
    const handler = VM_IOCTLS.get(request);
    if (handler === undefined) {
      throw new KernelError('ENOTTY', 'vm-ioctl', 'a VM has no such ioctl', { request });
    }
    return handler(this.vm, arg, task, this.#kvm);
  }

  stat(): FileStat {
    return KVM_STAT;
  }

  release(): Promise<void> {
    return this.vm.put();
  }
}

/** Throws EIO for processes other than the one that created the VM, and for a VM that is broken. @internal */
export function checkAlive(vm: Vm, task: Task): void {
  if (vm.process !== task.process) {
    throw new KernelError('EIO', 'vm-other-process', 'the VM belongs to the process that created it');
  }
  if (vm.bugged !== null) throw vm.bug(vm.bugged);
}
