import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { GUEST_MEMFD_FLAG } from '../../../src/abi/kvm/structs.ts';
import { createGuestMemfd, linkGuestMemfd, supportedFlags } from '../../../src/kvm/guest-memfd/create.ts';
import { guestMemfdAt } from '../../../src/kvm/guest-memfd/descriptor.ts';
import {
  PKVM_FILE,
  PLAIN_FILE,
  SNP_FILE,
  SW_PROTECTED_FILE,
  TDX_FILE,
} from '../../../src/kvm/guest-memfd/technologies.ts';
import { DEFAULT_GUEST_MEMFD_OPTIONS } from '../../../src/kvm/guest-memfd/vm-files.ts';
import { FakeVm, startBench } from './fake-vm.ts';

const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;
const PAGE = BigInt(PAGE_4K);

describe('creation of guest_memfds', () => {
  it('checks flags before sizes', async () => {
    const { vm, task, end } = await startBench();
    const create = (size: bigint, flags: bigint) => createGuestMemfd(vm, task, { size, flags });
    const reason = (code: string) => ({ errno: 'EINVAL', reason: { code } });
    await expect(create(1n, 4n)).rejects.toMatchObject(reason('gmem-flags'));
    await expect(create(PAGE, INIT_SHARED)).rejects.toMatchObject(reason('gmem-flags'));
    for (const size of [0n, 1n, PAGE - 1n, PAGE + 1n, 2n ** 63n, 2n ** 64n - PAGE]) {
      await expect(create(size, MMAP)).rejects.toMatchObject(reason('gmem-size'));
    }
    expect(vm.references).toBe(1);
    await end();
  });

  it('takes the largest size a file can have and costs nothing for it', async () => {
    const { vm, task, freePages, end } = await startBench();
    const free = freePages();
    const fd = await createGuestMemfd(vm, task, { size: 2n ** 63n - PAGE, flags: 0n });
    expect(task.fstat(fd).sizeBytes).toBe(2 ** 63 - PAGE_4K);
    expect(freePages()).toBe(free);
    await end();
  });

  it('offers INIT_SHARED where nothing is private, or where pages can be converted in place', () => {
    const off = DEFAULT_GUEST_MEMFD_OPTIONS;
    const on = { ...off, inPlaceConversion: true };
    for (const rules of [SW_PROTECTED_FILE, TDX_FILE, SNP_FILE, PKVM_FILE]) {
      expect(supportedFlags(rules, off)).toBe(MMAP);
      expect(supportedFlags(rules, on)).toBe(MMAP | INIT_SHARED);
    }
    expect(supportedFlags(PLAIN_FILE, off)).toBe(MMAP | INIT_SHARED);
  });

  it('gives descriptors and inodes of their own, and keeps the VM', async () => {
    const { vm, task, create, end } = await startBench();
    const one = await create(1);
    const two = await create(2);
    expect(task.fstat(one.fd)).toMatchObject({ sizeBytes: PAGE_4K, blockSizeBytes: PAGE_4K, blocks: 0 });
    expect(task.fstat(two.fd).inode).not.toBe(task.fstat(one.fd).inode);
    expect(vm.references).toBe(3);
    await task.close(one.fd);
    expect(vm.references).toBe(2);
    await end();
  });

  it('has no reading, writing, resizing, and no ioctl where conversion in place is off', async () => {
    const { task, create, end } = await startBench();
    const { fd } = await create(1);
    await expect(task.read(fd, 1)).rejects.toMatchObject({ errno: 'EINVAL' });
    await expect(task.write(fd, new Uint8Array(1))).rejects.toMatchObject({ errno: 'EINVAL' });
    await expect(task.pread(fd, 1, 0)).rejects.toMatchObject({ errno: 'ESPIPE' });
    await expect(task.pwrite(fd, new Uint8Array(1), 0)).rejects.toMatchObject({ errno: 'ESPIPE' });
    await expect(task.ftruncate(fd, 0)).rejects.toMatchObject({ errno: 'EINVAL' });
    await expect(task.ioctl(fd, 0xc080aed2)).rejects.toMatchObject({ errno: 'ENOTTY' });
    await end();
  });

  it('finds files by descriptor: EBADF, EINVAL for other kinds and other VMs', async () => {
    const { kernel, vm, task, create, end } = await startBench();
    const { fd, file } = await create(1);
    const other = new FakeVm(kernel, SW_PROTECTED_FILE, {});
    const memfd = task.memfdCreate('plain');
    expect(guestMemfdAt(vm, task, fd)).toBe(file);
    expect(() => guestMemfdAt(vm, task, 99)).toThrow(expect.objectContaining({ errno: 'EBADF' }));
    expect(() => guestMemfdAt(vm, task, memfd)).toThrow(expect.objectContaining({ errno: 'EINVAL' }));
    expect(() => guestMemfdAt(other, task, fd)).toThrow(expect.objectContaining({ errno: 'EINVAL' }));
    await end();
  });

  it('shows one memory to two VMs; it goes with the last file', async () => {
    const { kernel, vm, task, create, freePages, end } = await startBench();
    const { fd, file } = await create(4);
    const other = new FakeVm(kernel, SW_PROTECTED_FILE, {});
    const linked = guestMemfdAt(other, task, await linkGuestMemfd(other, task, file));
    expect(linked.inode).toBe(file.inode);
    const here = await vm.bind(0, file, 0x100, 0, 4);
    const there = await other.bind(0, linked, 0x200, 0, 4);
    const pfn = await vm.touch(here, 0x101);
    expect(await other.touch(there, 0x201)).toBe(pfn);
    const free = freePages();
    await task.close(fd);
    expect(vm.mapped.size).toBe(0);
    expect(here.backing).toBeNull();
    expect(other.mapped.get(0x201)).toBe(pfn);
    expect(freePages()).toBe(free);
    const plain = new FakeVm(kernel, PLAIN_FILE, {});
    await expect(linkGuestMemfd(plain, task, linked)).rejects.toMatchObject({
      errno: 'EINVAL',
      reason: { code: 'gmem-link-technology' },
    });
    await end();
    expect(other.references).toBe(1);
  });
});
