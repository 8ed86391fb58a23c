import { describe, expect, it } from 'vitest';
import { DMA, DMA_DEVICE_PATH, DMA_PIN, DMA_TRANSFER, DMA_UNPIN } from '../../../src/abi/dma-device.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import { GUEST_MEMFD_FLAG, KVM_MEMORY_ATTRIBUTES2 } from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MAP, PROT } from '../../../src/abi/system-call-flags.ts';
import { loadDmaDevice } from '../../../src/kernel/process/dma-device.ts';
import { SW_PROTECTED_FILE } from '../../../src/kvm/guest-memfd/technologies.ts';
import { startBench } from './fake-vm.ts';

const PAGE = 4096;
const READ_WRITE = PROT.READ | PROT.WRITE;

/** A shared file of four pages, mapped, and the device. */
async function withDevice() {
  const bench = await startBench(SW_PROTECTED_FILE, { inPlaceConversion: true });
  const { kernel, task } = bench;
  loadDmaDevice(kernel);
  const device = await task.open(DMA_DEVICE_PATH);
  const { fd, file } = await bench.create(4, GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED);
  const at = await task.mmap({ fd, lengthBytes: 4 * PAGE, prot: READ_WRITE, flags: MAP.SHARED });
  const pin = async (page: number, pages: number): Promise<number> => {
    const arg = DMA_PIN.encode({ address: BigInt(at + page * PAGE), length: BigInt(pages * PAGE) });
    await task.ioctl(device, DMA.PIN, arg);
    return DMA_PIN.decode(arg).handle;
  };
  const write = async (handle: number, bytes: Uint8Array): Promise<void> => {
    const flags = MAP.PRIVATE | MAP.ANONYMOUS;
    const buffer = await task.mmap({ lengthBytes: PAGE, prot: READ_WRITE, flags });
    await task.store(buffer, bytes);
    const values = { handle, offset: 0n, buffer: BigInt(buffer), length: BigInt(bytes.length) };
    await task.ioctl(device, DMA.WRITE, DMA_TRANSFER.encode(values));
  };
  const unpin = (handle: number) => task.ioctl(device, DMA.UNPIN, DMA_UNPIN.encode({ handle }));
  const setPrivate = async (page: number, pages: number): Promise<bigint> => {
    const range = { offset: BigInt(page * PAGE), size: BigInt(pages * PAGE), attributes: 8n };
    const buffer = KVM_MEMORY_ATTRIBUTES2.encode(range);
    await task.ioctl(fd, KVM.SET_MEMORY_ATTRIBUTES2, buffer).catch((error: unknown) => {
      expect(error).toMatchObject({ errno: 'EAGAIN' });
    });
    return KVM_MEMORY_ATTRIBUTES2.decode(buffer).error_offset;
  };
  return { ...bench, fd, file, at, pin, write, unpin, setPrivate };
}

describe('device DMA to a guest_memfd', () => {
  it('reaches shared pages, and keeps them from becoming private as long as it has them', async () => {
    const { task, file, at, pin, write, unpin, setPrivate, end } = await withDevice();
    const handle = await pin(2, 1);
    await write(handle, Uint8Array.of(1, 2, 3));
    expect(await task.load(at + 2 * PAGE, 3)).toEqual(Uint8Array.of(1, 2, 3));
    expect(await setPrivate(0, 4)).toBe(BigInt(2 * PAGE));
    expect(file.inode.isUniform(0, 4, false)).toBe(true);
    await write(handle, Uint8Array.of(9));
    expect(await task.load(at + 2 * PAGE, 1)).toEqual(Uint8Array.of(9));
    await unpin(handle);
    expect(await setPrivate(0, 4)).toBe(0n);
    expect(file.inode.isUniform(0, 4, true)).toBe(true);
    await end();
  });

  it('cannot pin private pages, and pins nothing of a range that has one', async () => {
    const { kernel, file, pin, setPrivate, end } = await withDevice();
    await setPrivate(1, 1);
    await expect(pin(1, 1)).rejects.toMatchObject({ errno: 'EFAULT' });
    await expect(pin(0, 3)).rejects.toMatchObject({ errno: 'EFAULT' });
    expect(kernel.pageRefs.pins(file.inode.pageAt(0)!)).toBe(0);
    await end();
  });

  it('writes on to a page that the file has lost, which nobody else gets until it lets go', async () => {
    const { task, fd, at, pin, write, unpin, freePages, end } = await withDevice();
    const handle = await pin(0, 1);
    const free = freePages();
    await task.fallocate(fd, FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE, 0, PAGE);
    expect(freePages()).toBe(free);
    await write(handle, Uint8Array.of(5));
    expect(await task.load(at, 1)).toEqual(Uint8Array.of(0));
    await unpin(handle);
    await end();
  });
});
