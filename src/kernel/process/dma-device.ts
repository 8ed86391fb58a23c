/** A device that reads and writes memory by DMA through pinned pages, as one behind VFIO does. */
import { isAligned, PAGE_4K } from '../../abi/address.ts';
import { DMA, DMA_DEVICE_PATH, DMA_PIN, DMA_TRANSFER, DMA_UNPIN } from '../../abi/dma-device.ts';
import { KernelError } from '../../abi/errno.ts';
import { CpuException } from '../../machine/exceptions.ts';
import type { HostKernel } from '../host-kernel.ts';
import { USER_END } from './address-space.ts';
import { unknownRequest } from './file-calls.ts';
import type { FileObject } from './file-object.ts';
import { pinUserPages } from './pin-user-pages.ts';
import type { FileStat, UserArg } from './system-calls.ts';
import type { Task } from './task.ts';

/** Most bytes of one pin: what a device's page tables hold. */
const MAX_PIN_BYTES = 2 ** 30;

/** An open DMA device; pins last until they are undone or the file is closed. @public */
export class DmaDevice implements FileObject {
  readonly kind = 'dma';
  readonly #kernel: HostKernel;
  readonly #inode: number;
  /** Page frames by handle. */
  readonly #pins = new Map<number, readonly number[]>();
  #nextHandle = 1;

  constructor(kernel: HostKernel) {
    this.#kernel = kernel;
    this.#inode = kernel.nextInode();
  }

  ioctl(request: number, arg: UserArg, task: Task): Promise<number> {
    switch (request) {
      case DMA.PIN:
        return this.#pin(arg, task);
      case DMA.WRITE:
        return this.#transfer(arg, task, 'write');
      case DMA.READ:
        return this.#transfer(arg, task, 'read');
      case DMA.UNPIN:
        return this.#unpin(arg, task);
      default:
        throw unknownRequest(this.kind, request);
    }
  }

  stat(): FileStat {
    return { inode: this.#inode, sizeBytes: 0, blockSizeBytes: PAGE_4K, blocks: 0, links: 1 };
  }

  fdinfo(): Record<string, string> {
    return { pins: `${this.#pins.size}` };
  }

  async release(): Promise<void> {
    for (const handle of [...this.#pins.keys()]) this.#release(handle);
  }

  async #pin(arg: UserArg, task: Task): Promise<number> {
    const request = DMA_PIN.decode(await task.copyIn(arg, DMA_PIN.bytes));
    const address = Number(request.address);
    const length = Number(request.length);
    const bad = length === 0 || length > MAX_PIN_BYTES || address + length > USER_END;
    if (bad || !isAligned(address, PAGE_4K) || !isAligned(length, PAGE_4K)) {
      throw new KernelError(
        'EINVAL',
        'dma-range',
        'DMA needs whole pages of user memory, at most 1 GiB of them',
        {
          address,
          length,
        },
      );
    }
    const pages = await pinUserPages(task, address, length / PAGE_4K);
    const handle = this.#nextHandle++;
    this.#pins.set(handle, pages);
    try {
      await task.copyOut(arg, DMA_PIN.encode({ ...request, handle }));
    } catch (error) {
      this.#release(handle);
      throw error;
    }
    return 0;
  }

  async #transfer(arg: UserArg, task: Task, what: 'read' | 'write'): Promise<number> {
    const request = DMA_TRANSFER.decode(await task.copyIn(arg, DMA_TRANSFER.bytes));
    const offset = Number(request.offset);
    const length = Number(request.length);
    const pinned = this.#pagesOf(request.handle).length * PAGE_4K;
    if (offset + length > pinned) {
      throw new KernelError('EINVAL', 'dma-range', 'the transfer ends beyond the pinned range', {
        offset,
        length,
        pinned,
      });
    }
    if (what === 'write') {
      const bytes = await task.copyIn(request.buffer, length);
      this.#forEachPage(request.handle, offset, length, (address, size, done) =>
        this.#kernel.machine.memory.write(address, bytes.subarray(done, done + size), 0),
      );
      return 0;
    }
    const bytes = new Uint8Array(length);
    this.#forEachPage(request.handle, offset, length, (address, size, done) =>
      bytes.set(this.#kernel.machine.memory.read(address, size, 0), done),
    );
    await task.copyOut(request.buffer, bytes);
    return 0;
  }

  async #unpin(arg: UserArg, task: Task): Promise<number> {
    const { handle } = DMA_UNPIN.decode(await task.copyIn(arg, DMA_UNPIN.bytes));
    this.#pagesOf(handle);
    this.#release(handle);
    return 0;
  }

  #pagesOf(handle: number): readonly number[] {
    const pages = this.#pins.get(handle);
    if (pages !== undefined) return pages;
    throw new KernelError('EINVAL', 'dma-handle', `nothing is pinned with the handle ${handle}`, { handle });
  }

  #release(handle: number): void {
    for (const pfn of this.#pins.get(handle)!) this.#kernel.pageRefs.unpin(pfn);
    this.#pins.delete(handle);
  }

  /** What the device accesses, unless the machine keeps it from the host: devices may do no more than the host. */
  #forEachPage(
    handle: number,
    offset: number,
    length: number,
    access: (address: number, size: number, done: number) => void,
  ): void {
    // The pin may be gone: the caller slept since it looked.
    const pages = this.#pagesOf(handle);
    const { hostAccess } = this.#kernel.machine;
    try {
      for (let done = 0; done < length; ) {
        const at = offset + done;
        const size = Math.min(PAGE_4K - (at % PAGE_4K), length - done);
        const address = pages[Math.floor(at / PAGE_4K)]! * PAGE_4K + (at % PAGE_4K);
        hostAccess?.(address, size, 'store');
        access(address, size, done);
        done += size;
      }
    } catch (error) {
      if (!(error instanceof CpuException)) throw error;
      throw new KernelError('EIO', 'dma-blocked', `the device may not access the page: ${error.message}`);
    }
  }
}

/** Registers /dev/tdxlab-dma. @public */
export function loadDmaDevice(kernel: HostKernel): void {
  kernel.devices.register(DMA_DEVICE_PATH, () => new DmaDevice(kernel));
}
