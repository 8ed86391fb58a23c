/** memfd_create. */
import { KernelError } from '../../abi/errno.ts';
import { MFD } from '../../abi/system-call-flags.ts';
import { Memfd } from './memfd.ts';
import { OpenFile } from './open-file.ts';
import type { Task } from './task.ts';

/** NAME_MAX less the prefix "memfd:". */
const MAX_NAME = 249;

/** @internal */
export function createMemfd(task: Task, name: string, flags: number): number {
  const { kernel } = task;
  const { files } = task.process;
  const make = (flags & MFD.INACCESSIBLE) !== 0 ? kernel.inaccessibleMemfd : null;
  const known = MFD.CLOEXEC | MFD.ALLOW_SEALING | (make === null ? 0 : MFD.INACCESSIBLE);
  if ((flags & ~known) !== 0) {
    throw new KernelError('EINVAL', 'memfd-flags', 'memfd_create does not know all of the flags', {
      flags,
      known,
    });
  }
  if (new TextEncoder().encode(name).length > MAX_NAME) {
    throw new KernelError('EINVAL', 'memfd-name', `the name has more than ${MAX_NAME} bytes`, { name });
  }
  files.reserve();
  const object = make === null ? new Memfd(kernel, name) : make(name, flags);
  return files.install(new OpenFile(object, kernel.openObjects, { seekable: true }));
}
