/** The system calls on addresses besides mmap, with their checks in the kernel's order. */
import { alignUp, isAligned, PAGE_4K } from '../../abi/address.ts';
import { ERRNO, type ErrnoName, KernelError } from '../../abi/errno.ts';
import { FALLOC_FL, MADV, MPOL, MPOL_MF, O } from '../../abi/system-call-flags.ts';
import { USER_END } from './address-space.ts';
import type { MemoryArea } from './memory-area.ts';
import { checkPolicyMode, type MemoryPolicy, policyOf } from './mempolicy.ts';
import { type PolicyReport, UserFault } from './system-calls.ts';
import type { Task } from './task.ts';
import { userNumber } from './user-access.ts';

/** @internal */
export async function munmap(task: Task, address: number, lengthBytes: number): Promise<void> {
  const start = userNumber(address);
  const length = userNumber(lengthBytes);
  if (!isAligned(start, PAGE_4K) || start > USER_END || length > USER_END - start || length === 0) {
    throw refusal('EINVAL', 'bad-range', 'no range of user addresses that starts at a page', {
      address: start,
      length,
    });
  }
  await task.process.memory.unmap(start, start + alignUp(length, PAGE_4K));
}

/** Advice that changes nothing here: read-ahead and huge pages of the page cache are not modelled. */
const IGNORED: ReadonlySet<number> = new Set([
  MADV.NORMAL,
  MADV.RANDOM,
  MADV.SEQUENTIAL,
  MADV.WILLNEED,
  MADV.HUGEPAGE,
  MADV.NOHUGEPAGE,
]);

type Advise = (task: Task, area: MemoryArea, start: number, end: number) => Promise<void> | void;

const ADVICE: ReadonlyMap<number, Advise> = new Map<number, Advise>([
  [MADV.DONTNEED, (_, area, start, end) => area.space.zap(start, end, 'everything')],
  [MADV.REMOVE, remove],
  [MADV.DONTFORK, setDontFork(true)],
  [MADV.DOFORK, setDontFork(false)],
  [MADV.POPULATE_READ, (task, area, start, end) => populate(task, area, start, end, false)],
  [MADV.POPULATE_WRITE, (task, area, start, end) => populate(task, area, start, end, true)],
  [
    MADV.COLLAPSE,
    () => {
      throw refusal('EINVAL', 'no-huge-pages', 'the memory has no huge pages');
    },
  ],
]);

/** Advice that is taken up to the first hole rather than for all that is mapped. */
const STOPS_AT_HOLES: ReadonlySet<number> = new Set([MADV.POPULATE_READ, MADV.POPULATE_WRITE]);

/** @internal */
export async function madvise(
  task: Task,
  address: number,
  lengthBytes: number,
  advice: number,
): Promise<void> {
  const advise = ADVICE.get(advice);
  if (advise === undefined && !IGNORED.has(advice)) {
    throw refusal('EINVAL', 'unknown-advice', `madvise does not know the advice ${advice}`, { advice });
  }
  const { start, end } = pageRange(address, lengthBytes);
  const { areas } = task.process.memory;
  let next = start;
  if (advise !== undefined) {
    for (const area of areas.within(start, end)) {
      if (area.start > next && STOPS_AT_HOLES.has(advice)) throw notMapped(next);
      await advise(task, area, Math.max(start, area.start), Math.min(end, area.end));
      next = area.end;
    }
  }
  if (!areas.covers(start, end)) throw notMapped(start);
}

/** @internal */
export function mbind(
  task: Task,
  address: number,
  lengthBytes: number,
  mode: number,
  nodes: readonly number[],
  flags: number,
): void {
  const { memory } = task.process;
  checkPolicyMode(mode, flags);
  // A length that the alignment to pages wraps to nothing is no length here.
  const length = userNumber(lengthBytes) > 2 ** 64 - PAGE_4K ? 0 : lengthBytes;
  const { start, end } = pageRange(address, length);
  if (start === end) return;
  const policy = policyOf(mode, nodes, task.kernel.allocator.nodes);
  const { areas: all } = memory;
  const isMapped = policy === null ? all.within(start, end).length > 0 : all.covers(start, end);
  if (!isMapped) throw refusal('EFAULT', 'not-mapped', 'part of the range is not mapped', { address: start });
  memory.split(start);
  memory.split(end);
  const areas = memory.areas.within(start, end);
  if ((flags & MPOL_MF.STRICT) !== 0) checkPlaces(task, start, end, policy);
  for (const area of areas) {
    if (area.ops?.setPolicy === undefined || !area.shared) area.policy = policy;
    else
      area.ops.setPolicy(area, area.indexOf(area.start / PAGE_4K), area.indexOf(area.end / PAGE_4K), policy);
  }
}

/** @internal */
export function getMempolicy(task: Task, address: number): PolicyReport {
  const at = userNumber(address);
  const area = task.process.memory.areas.at(at);
  if (area === undefined) throw refusal('EFAULT', 'not-mapped', 'nothing is mapped there', { address: at });
  const index = area.indexOf(Math.floor(at / PAGE_4K));
  const policy = area.shared && area.ops?.getPolicy ? area.ops.getPolicy(area, index) : area.policy;
  return policy ?? { mode: MPOL.DEFAULT, nodes: [] };
}

/** @internal */
export function pageNodes(task: Task, addresses: readonly number[]): readonly number[] {
  const { memory } = task.process;
  return addresses.map((address) => {
    const at = userNumber(address);
    const pfn = memory.pfnAt(Math.floor(at / PAGE_4K));
    return (pfn === null ? undefined : task.kernel.allocator.nodeOf(pfn)) ?? -ERRNO.EFAULT;
  });
}

function setDontFork(value: boolean): Advise {
  return (_, area, start, end) => {
    const { space } = area;
    space.split(start);
    space.split(end);
    for (const part of space.areas.within(start, end)) part.dontFork = value;
  };
}

/** MADV_REMOVE: a hole in the file behind a shared mapping, where the file is open for writing. */
async function remove(task: Task, area: MemoryArea, start: number, end: number): Promise<void> {
  const { file } = area;
  if (file?.object.fallocate === undefined) {
    throw refusal('EINVAL', 'no-file', 'there is no file behind the mapping that could have holes');
  }
  if (!area.shared || (file.flags & O.ACCMODE) !== O.RDWR) {
    throw refusal('EACCES', 'not-writable', 'the mapping cannot write to its file');
  }
  const mode = FALLOC_FL.PUNCH_HOLE | FALLOC_FL.KEEP_SIZE;
  const offset = BigInt(area.indexOf(start / PAGE_4K)) * BigInt(PAGE_4K);
  await file.object.fallocate(mode, offset, BigInt(end - start), task);
}

async function populate(
  task: Task,
  area: MemoryArea,
  start: number,
  end: number,
  write: boolean,
): Promise<void> {
  if (write ? !area.writable : !area.readable) {
    throw refusal('EINVAL', 'mapping-access', 'the mapping does not allow the access');
  }
  try {
    for (let vpn = start / PAGE_4K; vpn < end / PAGE_4K; vpn++) await area.space.faultIn(vpn, write, task);
  } catch (error) {
    if (!(error instanceof UserFault)) throw error;
    throw refusal('EFAULT', 'cannot-populate', `a page cannot be made: ${error.reason}`, {
      address: error.address,
    });
  }
}

function notMapped(address: number): KernelError {
  return refusal('ENOMEM', 'not-mapped', 'part of the range is not mapped', { address });
}

/** MPOL_MF_STRICT: EIO where a page lies on a node that the policy does not allow. */
function checkPlaces(task: Task, start: number, end: number, policy: MemoryPolicy | null): void {
  if (policy === null || policy.nodes.length === 0) return;
  for (let vpn = start / PAGE_4K; vpn < end / PAGE_4K; vpn++) {
    const pfn = task.process.memory.pfnAt(vpn);
    const node = pfn === null ? undefined : task.kernel.allocator.nodeOf(pfn);
    if (node === undefined || policy.nodes.includes(node)) continue;
    throw refusal('EIO', 'page-elsewhere', `a page is on node ${node} already`, {
      address: vpn * PAGE_4K,
      node,
    });
  }
}

/** The pages of a range that starts at one. */
function pageRange(address: number, lengthBytes: number): { readonly start: number; readonly end: number } {
  const start = userNumber(address);
  const length = userNumber(lengthBytes);
  if (!isAligned(start, PAGE_4K)) {
    throw refusal('EINVAL', 'address-unaligned', 'the address is no multiple of 4096', { address: start });
  }
  if (start + length > 2 ** 64 - PAGE_4K) {
    throw refusal('EINVAL', 'bad-range', 'the range wraps around', { address: start, length });
  }
  // Nothing is mapped beyond the user addresses, whatever else the range holds.
  return { start, end: Math.min(start + alignUp(length, PAGE_4K), Math.max(start, USER_END) + PAGE_4K) };
}

function refusal(
  errno: ErrnoName,
  code: string,
  text: string,
  data: Record<string, unknown> = {},
): KernelError {
  return new KernelError(errno, code, text, data);
}
