import { describe, expect, it } from 'vitest';
import { DMA, DMA_DEVICE_PATH, DMA_PIN, DMA_TRANSFER, DMA_UNPIN } from '../../../src/abi/dma-device.ts';
import { MADV, PROT } from '../../../src/abi/system-call-flags.ts';
import { loadDmaDevice } from '../../../src/kernel/process/dma-device.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import { CpuException, VECTOR_PF } from '../../../src/machine/exceptions.ts';
import { ANONYMOUS, bytesOf, mapPages, outcome, tinyProcess } from './tiny-process.ts';

const PAGE = 4096;

/** A task with the device open. */
async function withDevice() {
  const tiny = tinyProcess();
  loadDmaDevice(tiny.kernel);
  const fd = await tiny.task.open(DMA_DEVICE_PATH);
  return { ...tiny, fd };
}

async function pin(task: Task, fd: number, address: number, length: number): Promise<number> {
  const arg = DMA_PIN.encode({ address: BigInt(address), length: BigInt(length) });
  await task.ioctl(fd, DMA.PIN, arg);
  return DMA_PIN.decode(arg).handle;
}

function transfer(handle: number, offset: number, buffer: number, length: number): Uint8Array {
  const values = { handle, offset: BigInt(offset), buffer: BigInt(buffer), length: BigInt(length) };
  return DMA_TRANSFER.encode(values);
}

describe('the DMA device', () => {
  it('writes and reads pinned memory', async () => {
    const { task, fd } = await withDevice();
    const at = await mapPages(task, 3);
    const handle = await pin(task, fd, at, 2 * PAGE);
    await task.store(at + 2 * PAGE, bytesOf(6));
    await task.ioctl(fd, DMA.WRITE, transfer(handle, 4000, at + 2 * PAGE, 200));
    expect((await task.load(at, 2 * PAGE)).filter((byte) => byte === 6).length).toBe(200);
    await task.ioctl(fd, DMA.READ, transfer(handle, 4199, at + 2 * PAGE, 2));
    expect([...(await task.load(at + 2 * PAGE, 3))]).toEqual([6, 0, 6]);
    expect(task.fdinfo(fd).pins).toBe('1');
  });

  it('goes on writing to the pages it pinned, which live until it lets go', async () => {
    const { task, fd, kernel, usedPages } = await withDevice();
    const at = await mapPages(task, 2);
    const handle = await pin(task, fd, at, PAGE);
    const pfn = task.process.memory.pfnAt(at / PAGE)!;
    expect([kernel.pageRefs.pins(pfn), kernel.pageRefs.count(pfn)]).toEqual([1, 2]);
    const child = await task.fork();
    await task.store(at, bytesOf(1, 1));
    expect(task.process.memory.pfnAt(at / PAGE)).toBe(pfn);
    await task.madvise(at, PAGE, MADV.DONTNEED);
    await task.store(at + PAGE, bytesOf(9));
    await task.ioctl(fd, DMA.WRITE, transfer(handle, 0, at + PAGE, 8));
    expect((await task.load(at, 1))[0]).toBe(0);
    await task.ioctl(fd, DMA.UNPIN, DMA_UNPIN.encode({ handle }));
    expect(kernel.pageRefs.count(pfn)).toBe(0);
    await child.exit();
    await task.exit();
    expect(usedPages()).toBe(0);
  });

  it('lets go of everything when it is closed', async () => {
    const { task, fd, kernel, usedPages } = await withDevice();
    const at = await mapPages(task, 2);
    await pin(task, fd, at, 2 * PAGE);
    await pin(task, fd, at, PAGE);
    await task.munmap(at, 2 * PAGE);
    expect(usedPages()).toBe(2);
    await task.close(fd);
    expect([usedPages(), kernel.pageRefs.size]).toEqual([0, 0]);
  });

  it('pins nothing where user space could not write', async () => {
    const { task, fd, usedPages } = await withDevice();
    const at = await mapPages(task, 2);
    const reads = await task.mmap({ lengthBytes: PAGE, prot: PROT.READ, flags: ANONYMOUS });
    expect(await outcome(() => pin(task, fd, reads, PAGE))).toBe('EFAULT');
    await task.munmap(at + PAGE, PAGE);
    expect(await outcome(() => pin(task, fd, at + PAGE, PAGE))).toBe('EFAULT');
    expect(await outcome(() => pin(task, fd, at, 2 * PAGE))).toBe('EFAULT');
    await task.munmap(at, PAGE);
    expect(usedPages()).toBe(0);
  });

  it.each([
    ['a part of a page', 0x10_0000, 100],
    ['an unaligned address', 0x10_0001, PAGE],
    ['no length', 0x10_0000, 0],
    ['no user address', 2 ** 47, PAGE],
    ['more than it has page tables for', 0x10_0000, 2 ** 31],
  ])('refuses to pin %s', async (_, address, length) => {
    const { task, fd } = await withDevice();
    expect(await outcome(() => pin(task, fd, address, length))).toBe('EINVAL');
  });

  it('refuses unknown handles, transfers beyond the pin, bad buffers and other requests', async () => {
    const { task, fd, kernel } = await withDevice();
    const at = await mapPages(task, 1);
    const handle = await pin(task, fd, at, PAGE);
    const write = (...args: Parameters<typeof transfer>) =>
      outcome(() => task.ioctl(fd, DMA.WRITE, transfer(...args)));
    expect(await write(handle + 1, 0, at, 1)).toBe('EINVAL');
    expect(await write(handle, PAGE, at, 1)).toBe('EINVAL');
    expect(await write(handle, 0, 0x5000, 1)).toBe('EFAULT');
    expect(await outcome(() => task.ioctl(fd, DMA.READ, transfer(handle, 0, 0x5000, 1)))).toBe('EFAULT');
    expect(await outcome(() => task.ioctl(fd, DMA.UNPIN, DMA_UNPIN.encode({ handle: 77 })))).toBe('EINVAL');
    expect(await outcome(() => task.ioctl(fd, DMA.PIN, new Uint8Array(3)))).toBe('EFAULT');
    expect(await outcome(() => task.ioctl(fd, 1))).toBe('ENOTTY');
    kernel.machine.hostAccess = () => {
      throw new CpuException(VECTOR_PF, 'the page is a guest’s');
    };
    expect(await write(handle, 0, at, 0)).toBe('done');
  });

  it('is EIO where the machine keeps the host from the page', async () => {
    const { task, fd, kernel } = await withDevice();
    const at = await mapPages(task, 2);
    await task.store(at + PAGE, bytesOf(1));
    const handle = await pin(task, fd, at, PAGE);
    const pfn = task.process.memory.pfnAt(at / PAGE)!;
    kernel.machine.hostAccess = (address) => {
      if (Math.floor(address / PAGE) === pfn) throw new CpuException(VECTOR_PF, 'the page is a guest’s');
    };
    expect(await outcome(() => task.ioctl(fd, DMA.WRITE, transfer(handle, 0, at + PAGE, 8)))).toBe('EIO');
  });
});
