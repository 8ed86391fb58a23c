/** Memory that fails: whether TDX had it, who had it, and that nobody gets it again (Linux host rules 1.8). */
import { alignDown, hex, overlaps, PAGE_4K } from '../abi/address.ts';
import { TDH } from '../abi/leaves.ts';
import { PAGE_TYPE } from '../abi/page-types.ts';
import { RCX, regNumber } from '../abi/registers.ts';
import { STATUS } from '../abi/status-codes.ts';
import { firstOnline } from './cpu.ts';
import type { HostKernel } from './host-kernel.ts';
import { pamtRange } from './pamt-alloc.ts';
import { seamcall, setOperands } from './seamcall.ts';

/** Somebody who may have the page `pfn`: takes it away from whoever uses it, or returns false. @public */
export interface MemoryUser {
  memoryFailure(pfn: number): Promise<boolean>;
}

/** @public */
export interface MemoryFailure {
  readonly pfn: number;
  /** The module had it: a TD's page, a control structure or PAMT. */
  readonly isPrivate: boolean;
  /**
   * `nobody`: it was free; `user`: whoever had it lost it; `kernel`: it stays where it is, and goes out of use when it is
   * freed; `known`: it failed before; `absent`: the page allocator does not have it.
   */
  readonly owner: 'nobody' | 'user' | 'kernel' | 'known' | 'absent';
}

/** @internal */
export async function memoryFailure(
  kernel: HostKernel,
  users: Iterable<MemoryUser>,
  address: number,
): Promise<MemoryFailure> {
  const page = alignDown(address, PAGE_4K);
  const pfn = page / PAGE_4K;
  const isPrivate = isPrivatePage(kernel, page);
  const suffix = isPrivate ? ': TDX private memory error. Possible kernel bug.' : '';
  kernel.log.write('err', 'mce', `memory at ${hex(page)} has failed${suffix}`, 'memory-failure');
  if (kernel.allocator.isPoisoned(pfn)) return { pfn, isPrivate, owner: 'known' };
  for (const user of users) {
    if (await user.memoryFailure(pfn)) return { pfn, isPrivate, owner: 'user' };
  }
  const found = kernel.allocator.poison(pfn);
  return { pfn, isPrivate, owner: found === 'free' ? 'nobody' : found === 'used' ? 'kernel' : found };
}

/** A page that the module says is not delegated is not private, and a reserved one only where a PAMT is. */
function isPrivatePage(kernel: HostKernel, page: number): boolean {
  if (kernel.state !== 'initialized') return false;
  const cpu = firstOnline(kernel.cpus);
  setOperands(cpu, page);
  if (seamcall(cpu, TDH.phymemPageRdmd) !== STATUS.TDX_SUCCESS) return false;
  const type = regNumber(cpu.lp.regs, RCX);
  if (type === PAGE_TYPE.NDA) return false;
  const range = { start: page, end: page + PAGE_4K };
  return type !== PAGE_TYPE.RSVD || kernel.tdmrs.some(({ pamt }) => overlaps(pamtRange(pamt), range));
}
