/** Memory of user space's own process: buffers that structures point to, and memory that guests see. */
import { alignUp, PAGE_4K } from '../../abi/address.ts';
import { MAP, PROT } from '../../abi/system-call-flags.ts';
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

/** Runs `work` with the address of a buffer that begins with `bytes`, in whole pages; it is gone afterwards. @public */
export async function withBuffer<T>(
  calls: SystemCalls,
  bytes: Uint8Array,
  work: (address: number) => Promise<T>,
): Promise<T> {
  const length = alignUp(Math.max(bytes.length, 1), PAGE_4K);
  const address = await mapAnonymous(calls, length);
  try {
    if (bytes.length > 0) await calls.store(address, bytes);
    return await work(address);
  } finally {
    await calls.munmap(address, length);
  }
}
