/** The argument of KVM_MEMORY_ENCRYPT_OP, and the locks that its commands run under (Linux host rules 2.2). */
import { KernelError } from '../../../abi/errno.ts';
import { KVM_TDX_CMD } from '../../../abi/kvm/tdx.ts';
import type { ValuesOf } from '../../../abi/struct.ts';
import type { UserArg } from '../../../kernel/process/system-calls.ts';
import type { Task } from '../../../kernel/process/task.ts';
import type { Vm } from '../../vm.ts';

/** struct kvm_tdx_cmd. @internal */
export type TdxCommand = ValuesOf<typeof KVM_TDX_CMD>;

/** Reads a command. Throws EFAULT, EINVAL when user space sets hw_error. @internal */
export async function readCommand(task: Task, arg: UserArg): Promise<TdxCommand> {
  const command = KVM_TDX_CMD.decode(await task.copyIn(arg, KVM_TDX_CMD.bytes));
  if (command.hw_error === 0n) return command;
  throw new KernelError('EINVAL', 'hw-error-set', 'hw_error is for the kernel to set', {
    hwError: command.hw_error,
  });
}

/** Does `work` while nothing about the VM and its vCPUs can change. Throws EBUSY while a vCPU is being created. @internal */
export async function withVmState<T>(vm: Vm, work: () => Promise<T>): Promise<T> {
  return vm.lock.run(async () => {
    if (vm.createdVcpus !== vm.vcpus.size) {
      throw new KernelError('EBUSY', 'vcpu-being-created', 'a vCPU is being created');
    }
    const vcpus = [...vm.vcpus.values()];
    for (const { mutex } of vcpus) await mutex.acquire();
    try {
      return await vm.slotsLock.run(work);
    } finally {
      for (const { mutex } of vcpus) mutex.release();
    }
  });
}

/** EINVAL with a reason. @internal */
export function invalid(code: string, text: string, data: Record<string, unknown> = {}): KernelError {
  return new KernelError('EINVAL', code, text, data);
}
