/** KVM_MEMORY_ENCRYPT_OP on an SNP VM: the argument, and which command may come when. */
import { KernelError } from '../../../abi/errno.ts';
import { KVM_SEV, KVM_SEV_CMD } from '../../../abi/kvm/sev.ts';
import type { UserArg } from '../../../kernel/process/system-calls.ts';
import type { Task } from '../../../kernel/process/task.ts';
import { invalid, type SevHandler } from './command.ts';
import { initGuest } from './init2.ts';
import { launchFinish } from './launch-finish.ts';
import { launchStart } from './launch-start.ts';
import { launchUpdate } from './launch-update.ts';
import type { SnpGuest } from './snp-guest.ts';

const HANDLERS: ReadonlyMap<number, SevHandler> = new Map<number, SevHandler>([
  [KVM_SEV.INIT2, initGuest],
  [KVM_SEV.SNP_LAUNCH_START, launchStart],
  [KVM_SEV.SNP_LAUNCH_UPDATE, launchUpdate],
  [KVM_SEV.SNP_LAUNCH_FINISH, launchFinish],
]);

/** Commands that the kernel has no code for, though they have numbers. */
const UNKNOWN: ReadonlySet<number> = new Set([
  KVM_SEV.SEND_UPDATE_VMSA,
  KVM_SEV.RECEIVE_UPDATE_VMSA,
  KVM_SEV.CERT_EXPORT,
]);

/** @internal */
export async function memoryEncryptOp(guest: SnpGuest, task: Task, arg: UserArg): Promise<number> {
  // A null pointer asks whether there is encryption at all.
  if (arg === 0 || arg === 0n) return 0;
  const command = KVM_SEV_CMD.decode(await task.copyIn(arg, KVM_SEV_CMD.bytes));
  return guest.vm.lock.run(async () => {
    if (guest.isInitialised && command.id < KVM_SEV.SNP_LAUNCH_START) {
      throw new KernelError('EPERM', 'sev-not-snp', 'an SNP VM takes SNP commands only', { id: command.id });
    }
    const handler = HANDLERS.get(command.id) ?? refusalOf(command.id);
    try {
      await handler(guest, task, command);
    } finally {
      await task.copyOut(arg, KVM_SEV_CMD.encode(command));
    }
    return 0;
  });
}

/** Commands of SEV and SEV-ES guests, which this VM is not. Throws EINVAL for numbers without a command. */
function refusalOf(id: number): SevHandler {
  if (id > KVM_SEV.INIT2 || UNKNOWN.has(id))
    throw invalid('sev-command', `there is no SEV command ${id}`, { id });
  const isInit = id === KVM_SEV.INIT || id === KVM_SEV.ES_INIT;
  return async () => {
    if (isInit) throw invalid('sev-init-type', 'KVM_SEV_INIT is for VMs of the default type', { id });
    throw new KernelError('ENOTTY', 'sev-not-a-guest', 'the VM is no SEV or SEV-ES guest', { id });
  };
}

/** The same on a VM of another type, which is no guest of the secure processor. Throws EINVAL, ENOTTY, EFAULT. @internal */
export async function refuseForeign(task: Task, arg: UserArg): Promise<never> {
  const { id } = KVM_SEV_CMD.decode(await task.copyIn(arg, KVM_SEV_CMD.bytes));
  const isStart = id === KVM_SEV.INIT2 || id === KVM_SEV.SNP_LAUNCH_UPDATE;
  if (isStart || (id > KVM_SEV.INIT2 && !HANDLERS.has(id)) || UNKNOWN.has(id)) {
    throw invalid('sev-vm-type', 'the VM is of a type that is not encrypted', { id });
  }
  throw new KernelError('ENOTTY', 'sev-not-a-guest', 'the VM is no SEV guest', { id });
}
