/** Memory of user space's own process: buffers that structures point to, and memory that guests see. */
import { alignDown, alignUp, PAGE_4K } from '../../abi/address.ts';
import { MADV, MAP, PROT } from '../../abi/system-call-flags.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';

const READ_WRITE = PROT.READ | PROT.WRITE;

/** Address of anonymous memory, which costs nothing before it is touched. @public */
export function mapAnonymous(calls: SystemCalls, lengthBytes: number): Promise<number> {
  const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
  return calls.mmap({ lengthBytes, prot: READ_WRITE, flags });
}

/** Address of a shared mapping of a file. @public */
export function mapFile(calls: SystemCalls, fd: number, lengthBytes: number): Promise<number> {
  return calls.mmap({ lengthBytes, prot: READ_WRITE, flags: MAP.SHARED, fd });
}

/**
 * Writes to memory that may not be there yet. Throws EFAULT or ENOMEM where none is left, of which a mere store would end
 * in a signal.
 * @public
 */
export async function fillMemory(calls: SystemCalls, address: number, bytes: Uint8Array): Promise<void> {
  if (bytes.length === 0) return;
  const start = alignDown(address, PAGE_4K);
  await calls.madvise(start, alignUp(address + bytes.length, PAGE_4K) - start, MADV.POPULATE_WRITE);
  await calls.store(address, bytes);
}

/** Runs `work` with the address of a buffer that begins with `bytes`, in whole pages; it is gone afterwards. @public */
export async function withBuffer<T>(
  calls: SystemCalls,
  bytes: Uint8Array,
  work: (address: number) => Promise<T>,
): Promise<T> {
  const length = alignUp(Math.max(bytes.length, 1), PAGE_4K);
  const address = await mapAnonymous(calls, length);
  try {
    await fillMemory(calls, address, bytes);
    return await work(address);
  } finally {
    await calls.munmap(address, length);
  }
}
