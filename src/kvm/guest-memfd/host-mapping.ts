/** What user space sees of a guest_memfd that it maps. */
import { KernelError } from '../../abi/errno.ts';
import type { AreaOperations, MemoryArea, PageFault } from '../../kernel/process/memory-area.ts';
import type { Task } from '../../kernel/process/task.ts';
import type { GuestMemfdInode } from './inode.ts';

/** mmap of a file: ENODEV without GUEST_MEMFD_FLAG_MMAP, EINVAL for private mappings, EPERM by state. @internal */
export function mmapFile(inode: GuestMemfdInode, area: MemoryArea): void {
  if (!inode.allowsMmap) {
    throw new KernelError('ENODEV', 'gmem-no-mmap', 'the guest_memfd was made without GUEST_MEMFD_FLAG_MMAP');
  }
  if (!area.shared) {
    throw new KernelError('EINVAL', 'gmem-mmap-private', 'a guest_memfd can only be mapped with MAP_SHARED');
  }
  inode.life.check('mmap');
  area.ops = areaOperations(inode);
  area.mapping = inode.mapping;
}

function areaOperations(inode: GuestMemfdInode): AreaOperations {
  return {
    fault: (_area, index, _write, task) => fault(inode, index, task),
    setPolicy: (_area, start, end, policy) => inode.policies.set(start, end, policy),
    getPolicy: (_area, index) => inode.policies.get(index),
  };
}

/**
 * Answers at once, so that nothing can be converted between the look-up and the page table entry; only while somebody
 * holds the lock for writing does it wait.
 */
function fault(inode: GuestMemfdInode, index: number, task: Task): PageFault | Promise<PageFault> {
  if (index >= inode.pages)
    return { signal: 'SIGBUS', reason: 'the page lies beyond the end of the guest_memfd' };
  const { invalidateLock } = inode;
  if (invalidateLock.isWriting) return invalidateLock.read(() => 'retry');
  if (inode.isPrivate(index)) {
    return { signal: 'SIGBUS', reason: `page ${index} of the guest_memfd is private` };
  }
  if (!inode.life.permits('host-fault'))
    return { signal: 'SIGBUS', reason: inode.life.refusal('host-fault') };
  try {
    return { pfn: inode.hostPage(index, task.lp.node) };
  } catch (error) {
    if (error instanceof KernelError) return { signal: 'SIGBUS', reason: error.message };
    throw error;
  }
}
