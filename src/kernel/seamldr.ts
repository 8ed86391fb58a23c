/** Asking P-SEAMLDR about itself (Linux host rules 1.5, 1.6). */
import { PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { SEAMLDR } from '../abi/leaves.ts';
import { decodeSeamldrInfo, SEAMLDR_INFO_SIZE, type SeamldrInfo } from '../abi/seamldr-info.ts';
import { formatStatus, SW_STATUS } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import type { PageAllocator } from './allocator.ts';
import type { Cpu } from './cpu.ts';
import { seamldrCall, setOperands } from './seamcall.ts';
import { getVmx, putVmx } from './vmx.ts';

/**
 * SEAMLDR.INFO on `cpu`. Throws ENOMEM, ENODEV without a P-SEAMLDR or while it is busy, EIO with the status for any
 * other answer, and what entering VMX operation throws.
 * @public
 */
export function readSeamldrInfo(cpu: Cpu, allocator: PageAllocator): SeamldrInfo {
  const pfn = allocator.allocPages(0, { node: cpu.lp.node, purpose: 'seamldr-info' });
  if (pfn === null) throw new KernelError('ENOMEM', 'seamldr-info', 'no page for SEAMLDR_INFO');
  try {
    getVmx(cpu);
    setOperands(cpu, pfn * PAGE_4K);
    const status = seamldrCall(cpu, SEAMLDR.info);
    putVmx(cpu);
    if (status === STATUS.TDX_SUCCESS)
      return decodeSeamldrInfo(cpu.lp.load(pfn * PAGE_4K, SEAMLDR_INFO_SIZE));
    const name = formatStatus(status);
    throw status === SW_STATUS.TDX_SEAMCALL_VMFAILINVALID
      ? new KernelError('ENODEV', 'seamldr-unavailable', 'no P-SEAMLDR is loaded, or another CPU is using it')
      : new KernelError('EIO', 'seamldr-failed', `SEAMLDR.INFO failed with ${name}`, {
          status: `0x${status.toString(16)}`,
        });
  } finally {
    allocator.freePages(pfn, 1);
  }
}
