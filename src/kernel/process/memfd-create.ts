/** memfd_create. */
import { KernelError } from '../../abi/errno.ts';
import { MFD, O } from '../../abi/system-call-flags.ts';
import { Memfd } from './memfd.ts';
import { OpenFile } from './open-file.ts';
import type { Task } from './task.ts';

/** NAME_MAX less the prefix "memfd:". */
const MAX_NAME = 249;

/** Either may be asked for. */
const EXECUTABLE = MFD.NOEXEC_SEAL | MFD.EXEC;
const KNOWN = MFD.CLOEXEC | MFD.ALLOW_SEALING | EXECUTABLE;

/** @internal */
export function createMemfd(task: Task, name: string, flags: number): number {
  const { kernel } = task;
  const { files } = task.process;
  const make = (flags & MFD.INACCESSIBLE) !== 0 ? kernel.inaccessibleMemfd : null;
  const isBothKinds = make === null && (flags & EXECUTABLE) === EXECUTABLE;
  if ((flags & ~KNOWN) !== 0 || isBothKinds) {
    throw new KernelError('EINVAL', 'memfd-flags', 'memfd_create does not know the flags together', {
      flags,
      known: KNOWN,
    });
  }
  if (new TextEncoder().encode(name).length > MAX_NAME) {
    throw new KernelError('EINVAL', 'memfd-name', `the name has more than ${MAX_NAME} bytes`, { name });
  }
  files.reserve();
  const object = make === null ? new Memfd(kernel, name) : make(name, flags);
  return files.install(
    new OpenFile(object, kernel.openObjects, { flags: O.RDWR | O.LARGEFILE, seekable: true }),
  );
}
