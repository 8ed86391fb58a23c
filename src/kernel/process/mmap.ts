/** mmap, with its checks in the kernel's order. */
import { alignUp, isAligned, PAGE_4K } from '../../abi/address.ts';
import { type ErrnoName, KernelError } from '../../abi/errno.ts';
import { MADV, MAP, O, PROT } from '../../abi/system-call-flags.ts';
import { USER_END } from './address-space.ts';
import { LOWEST_ADDRESS } from './area-list.ts';
import { Memfd } from './memfd.ts';
import { MemoryArea } from './memory-area.ts';
import { madvise } from './memory-calls.ts';
import { OpenFile } from './open-file.ts';
import type { MmapRequest } from './system-calls.ts';
import type { Task } from './task.ts';
import { userNumber } from './user-access.ts';

/** Ends of what offsets reach: in regular files signed ones, in devices unsigned ones. */
const REGULAR_END = 2 ** 63 - PAGE_4K;
const DEVICE_END = 2 ** 64 - PAGE_4K;

/** @internal */
export async function mmap(task: Task, request: MmapRequest): Promise<number> {
  const { flags, prot } = request;
  const { memory } = task.process;
  const offset = userNumber(request.offset ?? 0);
  if (!isAligned(offset, PAGE_4K))
    throw refusal('EINVAL', 'offset-unaligned', 'the offset is no multiple of 4096');
  const file = fileOf(task, request);
  try {
    const length = checkLength(request);
    const pageOffset = offset / PAGE_4K;
    placeOf(task, request, length);
    const backing = await backingOf(task, file, request, length);
    const index = backing === file ? pageOffset : 0;
    let start: number;
    let area: MemoryArea;
    try {
      // Another thread may have taken the place meanwhile.
      start = placeOf(task, request, length);
      area = new MemoryArea(memory, {
        start,
        end: start + length,
        prot,
        flags,
        pageOffset: index,
        file: backing,
      });
      backing?.object.mmap?.(area, task);
      // Another thread may map something there while this one unmaps.
      while (memory.areas.within(start, area.end).length > 0) await memory.unmap(start, area.end);
    } catch (error) {
      if (backing !== file) await backing?.put();
      throw error;
    }
    if (backing === file) file?.get();
    memory.add(area);
    if ((flags & MAP.POPULATE) !== 0) await populate(task, area);
    return start;
  } finally {
    await file?.put();
  }
}

/** The open file, with a reference; null for anonymous memory. */
function fileOf(task: Task, { flags, fd }: MmapRequest): OpenFile | null {
  return (flags & MAP.ANONYMOUS) === 0 ? task.process.files.get(fd ?? -1).get() : null;
}

function checkLength({ lengthBytes }: MmapRequest): number {
  const length = userNumber(lengthBytes);
  if (length === 0) throw refusal('EINVAL', 'length-zero', 'a mapping of no bytes');
  if (length > USER_END) throw refusal('ENOMEM', 'no-addresses', 'a process has fewer addresses than that');
  return alignUp(length, PAGE_4K);
}

/** Where the mapping goes. */
function placeOf(task: Task, { flags, address: hint = 0 }: MmapRequest, length: number): number {
  const { memory } = task.process;
  const address = userNumber(hint);
  if ((flags & (MAP.FIXED | MAP.FIXED_NOREPLACE)) === 0) {
    const near = Math.floor(address / PAGE_4K) * PAGE_4K;
    const fits = near >= LOWEST_ADDRESS && near + length <= USER_END;
    return fits && memory.areas.within(near, near + length).length === 0 ? near : memory.findFree(length);
  }
  if (address > USER_END - length)
    throw refusal('ENOMEM', 'no-addresses', 'the range ends beyond the user addresses');
  if (!isAligned(address, PAGE_4K))
    throw refusal('EINVAL', 'address-unaligned', 'the address is no multiple of 4096');
  if (address < LOWEST_ADDRESS)
    throw refusal('EPERM', 'address-too-low', 'the lowest 64 KiB are never mapped');
  const taken = memory.areas.within(address, address + length).length > 0;
  if ((flags & MAP.FIXED_NOREPLACE) !== 0 && taken) {
    throw refusal('EEXIST', 'addresses-taken', 'something is mapped there already');
  }
  return address;
}

/** The file behind the area: the caller's, a new one for shared anonymous memory, or none. */
async function backingOf(
  task: Task,
  file: OpenFile | null,
  { flags, prot, offset = 0 }: MmapRequest,
  length: number,
): Promise<OpenFile | null> {
  const reach = file?.object.fallocate === undefined ? DEVICE_END : REGULAR_END;
  if (file !== null && userNumber(offset) + length > reach) {
    throw refusal('EOVERFLOW', 'offset-too-big', 'the mapping ends beyond the largest file offset');
  }
  const type = flags & MAP.TYPE;
  if (type !== MAP.SHARED && type !== MAP.PRIVATE && (type !== MAP.SHARED_VALIDATE || file === null)) {
    throw refusal('EINVAL', 'mapping-type', 'a mapping is either shared or private');
  }
  if (file === null) {
    if (type === MAP.PRIVATE) return null;
    const shared = new Memfd(task.kernel, '/dev/zero');
    await shared.truncate(BigInt(length));
    return new OpenFile(shared, task.kernel.openObjects);
  }
  if (type === MAP.SHARED_VALIDATE && (flags & ~KNOWN_FLAGS) !== 0) {
    throw refusal('EOPNOTSUPP', 'mapping-flags', 'the mapping has flags that are not known');
  }
  const access = file.flags & O.ACCMODE;
  const writesBack = type !== MAP.PRIVATE && (prot & PROT.WRITE) !== 0;
  if (access === O.WRONLY || (writesBack && access !== O.RDWR)) {
    throw refusal('EACCES', 'access-mode', 'the file is not open for what the mapping does');
  }
  // What ioctls make lies on mounts of the kernel's own, where nothing can be executed.
  if ((prot & PROT.EXEC) !== 0 && !file.seekable) {
    throw refusal('EPERM', 'no-exec', `a file of kind ${file.object.kind} cannot be mapped to be executed`);
  }
  if (file.object.mmap === undefined) {
    throw refusal('ENODEV', 'no-mmap', `a file of kind ${file.object.kind} cannot be mapped`);
  }
  return file;
}

const KNOWN_FLAGS = MAP.TYPE | MAP.FIXED | MAP.ANONYMOUS | MAP.NORESERVE | MAP.POPULATE | MAP.FIXED_NOREPLACE;

/** MAP_POPULATE: as much as can be; what cannot is no failure of mmap. */
async function populate(task: Task, area: MemoryArea): Promise<void> {
  const advice = area.writable ? MADV.POPULATE_WRITE : MADV.POPULATE_READ;
  try {
    await madvise(task, area.start, area.end - area.start, advice);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
  }
}

function refusal(errno: ErrnoName, code: string, text: string): KernelError {
  return new KernelError(errno, code, text);
}
