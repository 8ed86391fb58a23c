import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { GUEST_MEMFD_FLAG } from '../../../src/abi/kvm/structs.ts';
import { PLAIN_FILE, SW_PROTECTED_FILE } from '../../../src/kvm/guest-memfd/technologies.ts';
import { startBench } from './fake-vm.ts';

describe('slots bound to a guest_memfd', () => {
  it('may show several parts of one file, none of them twice', async () => {
    const { vm, create, end } = await startBench();
    const { file } = await create(10);
    await vm.bind(0, file, 0x100, 0, 4);
    await vm.bind(1, file, 0x200, 4, 4);
    const overlap = { errno: 'EEXIST', reason: { code: 'gmem-range-bound' } };
    await expect(vm.bind(2, file, 0x300, 3, 2)).rejects.toMatchObject(overlap);
    await expect(vm.bind(2, file, 0x300, 7, 3)).rejects.toMatchObject(overlap);
    await expect(vm.bind(2, file, 0x300, 0, 10)).rejects.toMatchObject(overlap);
    await expect(vm.bind(2, file, 0x300, 8, 3)).rejects.toMatchObject({
      errno: 'EINVAL',
      reason: { code: 'gmem-bind-beyond' },
    });
    await vm.bind(2, file, 0x300, 8, 2);
    await vm.unbind(0);
    await vm.bind(3, file, 0x400, 1, 3);
    expect(file.slots.map(({ id }) => id)).toEqual([3, 1, 2]);
    await end();
  });

  it('give the guest the page of the file, zeroed, and the same one again', async () => {
    const { kernel, vm, create, end } = await startBench();
    const { file } = await create(8);
    const slot = await vm.bind(0, file, 0x100, 4, 4);
    const pfn = await vm.touch(slot, 0x102);
    expect(file.inode.pageAt(6)).toBe(pfn);
    expect(kernel.cpus[0]!.lp.load(pfn * PAGE_4K, PAGE_4K).every((byte) => byte === 0)).toBe(true);
    expect((await file.guestPage(slot, 0x102, 0)).pfn).toBe(pfn);
    expect(await file.guestPage(slot, 0x103, 0)).toMatchObject({ maxOrder: 0 });
    await end();
  });

  it('keep their place when the file is closed, and fault with EFAULT', async () => {
    const { vm, task, create, freePages, end } = await startBench();
    const free = freePages();
    const { fd, file } = await create(4);
    const slot = await vm.bind(0, file, 0x100, 0, 4);
    await vm.touch(slot, 0x100);
    await task.close(fd);
    expect(slot.backing).toBeNull();
    expect(vm.mapped.size).toBe(0);
    expect(freePages()).toBe(free);
    await expect(file.guestPage(slot, 0x100, 0)).rejects.toMatchObject({
      errno: 'EFAULT',
      reason: { code: 'gmem-closed' },
    });
    await vm.unbind(0);
    await end();
  });

  it('outlive nothing: memory stays when a slot goes, and is there for the next one', async () => {
    const { vm, task, create, end } = await startBench();
    const { fd, file } = await create(4);
    const slot = await vm.bind(0, file, 0x100, 0, 4);
    const pfn = await vm.touch(slot, 0x101);
    await vm.unbind(0);
    expect(task.fstat(fd).blocks).toBe(8);
    const next = await vm.bind(0, file, 0x800, 0, 4);
    expect(await vm.touch(next, 0x801)).toBe(pfn);
    await expect(file.guestPage(slot, 0x101, 0)).rejects.toMatchObject({ errno: 'EFAULT' });
    await end();
  });

  it('waits for the lock of slots before it lets go of a file', async () => {
    const { vm, task, create, end } = await startBench();
    const { fd, file } = await create(4);
    const slot = await vm.bind(0, file, 0x100, 0, 4);
    await vm.slotsLock.acquire();
    const closing = task.close(fd);
    await new Promise((resolve) => setImmediate(resolve));
    expect(slot.backing).toBe(file);
    vm.slotsLock.release();
    await closing;
    expect(slot.backing).toBeNull();
    await end();
  });

  it('serve every access from the file once it can be mapped', async () => {
    const sw = await startBench(SW_PROTECTED_FILE);
    expect((await sw.create(1)).file.isBackingOnly).toBe(false);
    expect((await sw.create(1, GUEST_MEMFD_FLAG.MMAP)).file.isBackingOnly).toBe(true);
    await sw.end();
    const inPlace = await startBench(SW_PROTECTED_FILE, { inPlaceConversion: true });
    expect((await inPlace.create(1)).file).toMatchObject({ isBackingOnly: true, tracksPrivate: true });
    await inPlace.end();
    const plain = await startBench(PLAIN_FILE);
    expect((await plain.create(1)).file.tracksPrivate).toBe(false);
    await plain.end();
  });
});
