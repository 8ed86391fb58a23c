import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import { GUEST_MEMFD_FLAG, KVM_MEMORY_ATTRIBUTES2 } from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL } from '../../../src/abi/system-call-flags.ts';
import { SW_PROTECTED_FILE, TDX_FILE } from '../../../src/kvm/guest-memfd/technologies.ts';
import { recording, startBench } from './fake-vm.ts';

const PAGE = PAGE_4K;
const CHUNK = 512;
const HOLE = FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE;

describe('guest_memfd with chunks of 2 MiB', () => {
  it('fills aligned holes with one allocation, and the rest with pages', async () => {
    const { kernel, vm, task, create, end } = await startBench(SW_PROTECTED_FILE, { hugePages: true });
    const { fd, file } = await create(3 * CHUNK + 1);
    const before = kernel.allocator.requests;
    await task.fallocate(fd, FALLOC_FL.KEEP_SIZE, 256 * PAGE, (2 * CHUNK + 1) * PAGE);
    expect(kernel.allocator.requests - before).toBe(256 + 1 + 257);
    expect([0, 1, 2].map((chunk) => file.inode.orderAt(chunk * CHUNK + 256))).toEqual([0, 9, 0]);
    const slot = await vm.bind(0, file, 0x1000, 0, 3 * CHUNK + 1);
    const { pfn, maxOrder } = await file.guestPage(slot, 0x1000 + CHUNK + 5, 0);
    expect(maxOrder).toBe(9);
    expect((pfn - 5) % CHUNK).toBe(0);
    expect(await file.guestPage(slot, 0x1000 + 3 * CHUNK, 0)).toMatchObject({ maxOrder: 0 });
    await end();
  });

  it('makes pages of a chunk that is punched in part, and keeps the others where they are', async () => {
    const { technology, calls } = recording(TDX_FILE);
    const { vm, task, create, freePages, end } = await startBench(technology, { hugePages: true });
    const { fd, file } = await create(2 * CHUNK);
    const slot = await vm.bind(0, file, 0, 0, 2 * CHUNK);
    vm.files.advance('live');
    const free = freePages();
    const { pfn } = await file.guestPage(slot, 3, 0);
    expect(freePages()).toBe(free - CHUNK);
    await task.fallocate(fd, HOLE, 100 * PAGE, 8 * PAGE);
    expect(freePages()).toBe(free - CHUNK + 8);
    expect(calls.at(-1)).toBe('reclaim 8');
    expect(await file.guestPage(slot, 3, 0)).toEqual({ pfn, maxOrder: 0 });
    await task.fallocate(fd, HOLE, 0, CHUNK * PAGE);
    expect(freePages()).toBe(free);
    await file.guestPage(slot, CHUNK, 0);
    await task.fallocate(fd, HOLE, CHUNK * PAGE, CHUNK * PAGE);
    expect(calls.at(-1)).toBe('reclaim 512');
    await end();
  });

  it('makes pages of a chunk that is converted in part, and none of one that is converted whole', async () => {
    const { technology, calls } = recording(SW_PROTECTED_FILE);
    const { task, create, end } = await startBench(technology, { hugePages: true, inPlaceConversion: true });
    const { fd, file } = await create(2 * CHUNK, GUEST_MEMFD_FLAG.MMAP);
    await task.fallocate(fd, FALLOC_FL.KEEP_SIZE, 0, 2 * CHUNK * PAGE);
    const share = (index: number, pages: number) =>
      task.ioctl(
        fd,
        KVM.SET_MEMORY_ATTRIBUTES2,
        KVM_MEMORY_ATTRIBUTES2.encode({ offset: BigInt(index * PAGE), size: BigInt(pages * PAGE) }),
      );
    await share(0, CHUNK);
    expect(calls).toEqual(['make-shared 512']);
    expect(file.inode.orderAt(0)).toBe(9);
    await share(CHUNK + 8, 8);
    expect(calls.slice(1)).toEqual(['make-shared 8']);
    expect(file.inode.orderAt(CHUNK)).toBe(0);
    await end();
  });

  it('takes single pages where a chunk is mixed, or memory is in pieces', async () => {
    const { kernel, vm, task, create, end } = await startBench(SW_PROTECTED_FILE, {
      hugePages: true,
      inPlaceConversion: true,
    });
    const { fd, file } = await create(2 * CHUNK);
    const half = KVM_MEMORY_ATTRIBUTES2.encode({ size: BigInt(256 * PAGE) });
    await task.ioctl(fd, KVM.SET_MEMORY_ATTRIBUTES2, half);
    const slot = await vm.bind(0, file, 0, 0, 2 * CHUNK);
    expect(await file.guestPage(slot, 300, 0)).toMatchObject({ maxOrder: 0 });
    const first = kernel.allocator.requests;
    kernel.allocator.fault = (_purpose, index) => index === first;
    expect(await file.guestPage(slot, CHUNK, 0)).toMatchObject({ maxOrder: 0 });
    expect(file.inode.allocatedPages).toBe(2);
    await end();
  });
});
