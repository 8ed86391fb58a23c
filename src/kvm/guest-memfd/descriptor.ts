/** A guest_memfd by descriptor, as KVM_SET_USER_MEMORY_REGION2 names it. */
import { KernelError } from '../../abi/errno.ts';
import type { Task } from '../../kernel/process/task.ts';
import { GuestMemfdFile } from './file.ts';
import type { GuestMemfdUser } from './user.ts';

/** Throws EBADF for a closed descriptor, EINVAL for a file of another kind or a guest_memfd of another VM. @public */
export function guestMemfdAt(user: GuestMemfdUser, task: Task, fd: number): GuestMemfdFile {
  const { object } = task.process.files.get(fd);
  if (!(object instanceof GuestMemfdFile)) {
    throw new KernelError(
      'EINVAL',
      'gmem-not-guest-memfd',
      `descriptor ${fd} is a ${object.kind}, no guest_memfd`,
      {
        fd,
        kind: object.kind,
      },
    );
  }
  if (object.user !== user) {
    throw new KernelError('EINVAL', 'gmem-other-vm', `descriptor ${fd} is a guest_memfd of another VM`, {
      fd,
    });
  }
  return object;
}
