import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { GUEST_MEMFD_FLAG } from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MAP, PROT } from '../../../src/abi/system-call-flags.ts';
import { PLAIN_FILE, SW_PROTECTED_FILE } from '../../../src/kvm/guest-memfd/technologies.ts';
import { startBench } from './fake-vm.ts';

describe('memory failure in a guest_memfd', () => {
  it('takes the page from the guest, whose next fault is EHWPOISON; a new page comes after a hole', async () => {
    const { kernel, vm, task, create, freePages } = await startBench(SW_PROTECTED_FILE);
    const free = freePages();
    const { fd, file } = await create(4);
    const slot = await vm.bind(0, file, 0x100, 0, 4);
    const pfn = await vm.touch(slot, 0x102);
    expect(await vm.files.memoryFailure(pfn)).toBe(true);
    expect(await vm.files.memoryFailure(pfn + 1000)).toBe(false);
    expect(vm.mapped.has(0x102)).toBe(false);
    expect(vm.invalidations).toEqual([
      { startGfn: 0x102, endGfn: 0x103, what: 'private', why: 'memory-failure' },
    ]);
    await expect(vm.touch(slot, 0x102)).rejects.toMatchObject({ errno: 'EHWPOISON' });
    await expect(vm.touch(slot, 0x102)).rejects.toMatchObject({ reason: { data: { index: 2, pfn } } });
    await task.fallocate(fd, FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE, 2 * PAGE_4K, PAGE_4K);
    expect(await vm.touch(slot, 0x102)).not.toBe(pfn);
    await task.exit();
    expect(freePages()).toBe(free - 1);
    expect(kernel.pageRefs.size).toBe(0);
  });

  it('gives the host SIGBUS, and the page never comes back', async () => {
    const { vm, task, create, freePages } = await startBench(PLAIN_FILE);
    const free = freePages();
    const { fd, file } = await create(2, GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED);
    const at = await task.mmap({ fd, lengthBytes: 2 * PAGE_4K, prot: PROT.READ, flags: MAP.SHARED });
    await task.load(at, 2 * PAGE_4K);
    await vm.files.memoryFailure(file.inode.pageAt(0)!);
    await expect(task.load(at, 1)).rejects.toMatchObject({ signal: 'SIGBUS' });
    await task.load(at + PAGE_4K, 1);
    await task.exit();
    expect(freePages()).toBe(free - 1);
  });

  it('costs one page of a chunk of 2 MiB', async () => {
    const { vm, task, create, freePages } = await startBench(SW_PROTECTED_FILE, { hugePages: true });
    const free = freePages();
    const { fd, file } = await create(512);
    await task.fallocate(fd, FALLOC_FL.KEEP_SIZE, 0, 512 * PAGE_4K);
    expect(file.inode.orderAt(7)).toBe(9);
    await vm.files.memoryFailure(file.inode.pageAt(7)!);
    expect(file.inode.orderAt(7)).toBe(0);
    await task.exit();
    expect(freePages()).toBe(free - 1);
  });

  it('does not move pages', async () => {
    const { create, end } = await startBench();
    const { file } = await create(1);
    expect(() => file.inode.migrate(5)).toThrow(expect.objectContaining({ errno: 'EINVAL' }));
    await end();
  });
});
