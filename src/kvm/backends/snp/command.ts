/** What the commands of KVM_MEMORY_ENCRYPT_OP share: the argument, the way to the firmware. */
import { KernelError } from '../../../abi/errno.ts';
import type { KVM_SEV_CMD } from '../../../abi/kvm/sev.ts';
import type { ValuesOf } from '../../../abi/struct.ts';
import type { Task } from '../../../kernel/process/task.ts';
import { SEV_STATUS, sevStatusName } from '../../../machine/snp/firmware/commands.ts';
import { checkSevDevice, SEV_DEVICE } from './enable-snp.ts';
import type { SnpGuest } from './snp-guest.ts';

/** struct kvm_sev_cmd; `error` is written back. @internal */
export type SevCommand = ValuesOf<typeof KVM_SEV_CMD>;

/** One command. Throws KernelError; a firmware's refusal is EIO with the status in `command.error`. @internal */
export type SevHandler = (guest: SnpGuest, task: Task, command: SevCommand) => Promise<void>;

/**
 * Has the firmware carry out a command for user space, which shows its right to it by an open /dev/sev. Throws EBADF, and
 * EIO for the firmware's refusal.
 * @internal
 */
export function issueCommand(
  { host }: SnpGuest,
  task: Task,
  command: SevCommand,
  number: number,
  buffer: Uint8Array,
): void {
  checkSevDevice(task.process.files.get(command.sev_fd).object.kind);
  const status = host.command(number, buffer);
  command.error = status;
  if (status === SEV_STATUS.SUCCESS) return;
  throw new KernelError(
    'EIO',
    'sev-firmware',
    `the firmware behind ${SEV_DEVICE} refused: ${sevStatusName(status)}`,
    {
      command: number,
      status,
    },
  );
}

/** EINVAL with a reason. @internal */
export function invalid(code: string, text: string, data: Record<string, unknown> = {}): KernelError {
  return new KernelError('EINVAL', code, text, data);
}
