/** get_user_pages for devices: pages that stay where they are while a device uses them. */
import { PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { UserFault } from './system-calls.ts';
import type { Task } from './task.ts';

/**
 * Pins the `pages` pages that user space has at `address`, a multiple of 4 KiB, for writing, and returns their page
 * frames; `kernel.pageRefs.unpin` lets go of each. Throws EFAULT, with nothing pinned, where user space could not write.
 * @public
 */
export async function pinUserPages(task: Task, address: number, pages: number): Promise<readonly number[]> {
  const { memory } = task.process;
  const { pageRefs } = task.kernel;
  const pinned: number[] = [];
  try {
    while (pinned.length < pages) {
      const vpn = address / PAGE_4K + pinned.length;
      const pfn = memory.lookup(vpn, true);
      if (pfn < 0) {
        await memory.faultIn(vpn, true, task);
        continue;
      }
      pageRefs.pin(pfn);
      pinned.push(pfn);
    }
    return pinned;
  } catch (error) {
    for (const pfn of pinned) pageRefs.unpin(pfn);
    if (!(error instanceof UserFault)) throw error;
    throw new KernelError('EFAULT', 'cannot-pin', `a page cannot be pinned: ${error.reason}`, {
      address: error.address,
      signal: error.signal,
    });
  }
}
