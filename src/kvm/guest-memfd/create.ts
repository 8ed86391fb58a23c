/** KVM_CREATE_GUEST_MEMFD. */
import { hex, PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { GUEST_MEMFD_FLAG } from '../../abi/kvm/structs.ts';
import type { Task } from '../../kernel/process/task.ts';
import { GuestMemfdFile } from './file.ts';
import type { FileRules } from './file-technology.ts';
import { GuestMemfdInode } from './inode.ts';
import type { GuestMemfdUser } from './user.ts';
import type { GuestMemfdOptions } from './vm-files.ts';

/** Size in bytes and bits of GUEST_MEMFD_FLAG. @public */
export interface GuestMemfdRequest {
  readonly size: bigint;
  readonly flags: bigint;
}

/** Flags that a VM of the technology may give: what KVM_CAP_GUEST_MEMFD_FLAGS reports for it. @public */
export function supportedFlags(technology: FileRules, options: GuestMemfdOptions): bigint {
  const initShared = technology.allowsInitShared || (options.inPlaceConversion && technology.supportsInPlace);
  return initShared ? GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED : GUEST_MEMFD_FLAG.MMAP;
}

/**
 * The descriptor of a new file. Throws EINVAL for flags, then for a size that is not a positive multiple of 4 KiB (a loff_t:
 * 2^63 and more are negative), then EMFILE.
 * @public
 */
export async function createGuestMemfd(
  user: GuestMemfdUser,
  task: Task,
  request: GuestMemfdRequest,
): Promise<number> {
  const { technology, files } = user;
  const { size, flags } = request;
  const supported = supportedFlags(technology, files.options);
  if ((flags & ~supported) !== 0n) {
    throw new KernelError(
      'EINVAL',
      'gmem-flags',
      `a guest_memfd for ${technology.name} takes the flags ${hex(supported)}, not ${hex(flags)}`,
      { flags, supported },
    );
  }
  const sizeBytes = BigInt.asIntN(64, size);
  if (sizeBytes <= 0n || sizeBytes % BigInt(PAGE_4K) !== 0n) {
    throw new KernelError('EINVAL', 'gmem-size', 'the size must be a positive multiple of 4 KiB', { size });
  }
  task.process.files.reserve();
  const inode = new GuestMemfdInode({
    kernel: user.kernel,
    technology,
    options: files.options,
    pages: Number(sizeBytes / BigInt(PAGE_4K)),
    flags,
  });
  return task.installFile(new GuestMemfdFile(inode, user));
}

/**
 * Another VM's view of the memory of `file`, with no slots yet: what handing a guest over to another VM of the same host
 * begins with. Throws EINVAL where the other VM has another technology.
 * @internal
 */
export async function linkGuestMemfd(
  user: GuestMemfdUser,
  task: Task,
  file: GuestMemfdFile,
): Promise<number> {
  const { inode } = file;
  if (user.technology.name !== inode.technology.name) {
    throw new KernelError(
      'EINVAL',
      'gmem-link-technology',
      `a guest_memfd for ${inode.technology.name} cannot be shown by a VM of ${user.technology.name}`,
      { from: inode.technology.name, to: user.technology.name },
    );
  }
  task.process.files.reserve();
  return task.installFile(new GuestMemfdFile(inode, user));
}
