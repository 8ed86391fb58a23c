/** fallocate on a guest_memfd: memory for pages, or none any more. */
import { PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { FALLOC_FL } from '../../abi/system-call-flags.ts';
import type { Task } from '../../kernel/process/task.ts';
import type { GuestMemfdInode } from './inode.ts';

/** Bytes of a page, as lengths of system calls are. */
const PAGE = BigInt(PAGE_4K);

/**
 * Throws EOPNOTSUPP for other modes than KEEP_SIZE with or without PUNCH_HOLE, EINVAL for unaligned ranges and for memory
 * beyond the end (a hole may be there), EPERM by state, EINTR and ENOMEM with what was allocated so far staying.
 * @internal
 */
export async function fallocate(
  inode: GuestMemfdInode,
  mode: number,
  offset: bigint,
  length: bigint,
  task: Task,
): Promise<void> {
  if ((mode & FALLOC_FL.KEEP_SIZE) === 0) {
    throw new KernelError(
      'EOPNOTSUPP',
      'gmem-keep-size',
      'a guest_memfd has a fixed size: KEEP_SIZE is needed',
      { mode },
    );
  }
  if ((mode & ~(FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE)) !== 0) {
    throw new KernelError('EOPNOTSUPP', 'gmem-fallocate-mode', 'a guest_memfd can allocate and punch only', {
      mode,
    });
  }
  if (offset % PAGE !== 0n || length % PAGE !== 0n) {
    throw new KernelError('EINVAL', 'gmem-unaligned', 'offset and length must be multiples of 4 KiB', {
      offset,
      length,
    });
  }
  const start = Number(offset / PAGE);
  const end = Number((offset + length) / PAGE);
  if ((mode & FALLOC_FL.PUNCH_HOLE) !== 0) {
    inode.life.check('punch');
    await inode.punchHole(start, end);
    return;
  }
  if (end > inode.pages) {
    throw new KernelError(
      'EINVAL',
      'gmem-beyond-end',
      'the range reaches beyond the end of the guest_memfd',
      {
        offset,
        length,
        sizeBytes: inode.pages * PAGE_4K,
      },
    );
  }
  inode.life.check('allocate');
  await inode.invalidateLock.read(() => allocate(inode, start, end, task));
}

async function allocate(inode: GuestMemfdInode, start: number, end: number, task: Task): Promise<void> {
  const { schedule } = inode.kernel;
  for (let index = start; index < end; ) {
    task.checkSignal();
    inode.page(index, task.lp.node, start, end);
    index += 2 ** inode.orderAt(index) - (index % 2 ** inode.orderAt(index));
    if (schedule !== null) await schedule('gmem-allocate');
  }
}
