import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { GUEST_MEMFD_FLAG } from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MADV, MAP, MPOL, PROT } from '../../../src/abi/system-call-flags.ts';
import { UserFault } from '../../../src/kernel/process/system-calls.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import { PLAIN_FILE, SW_PROTECTED_FILE } from '../../../src/kvm/guest-memfd/technologies.ts';
import { startBench } from './fake-vm.ts';

const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;
const HOLE = FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE;
const PAGE = PAGE_4K;

const map = (task: Task, fd: number, pages: number, flags: number = MAP.SHARED): Promise<number> =>
  task.mmap({ fd, lengthBytes: pages * PAGE, prot: PROT.READ | PROT.WRITE, flags });
const sigbus = expect.objectContaining({ name: 'UserFault', signal: 'SIGBUS' });

describe('user mappings of a guest_memfd', () => {
  it('are refused without the flag, and when private', async () => {
    const { task, create, end } = await startBench(PLAIN_FILE);
    const plain = await create(1);
    const mappable = await create(1, MMAP | INIT_SHARED);
    await expect(map(task, plain.fd, 1)).rejects.toMatchObject({ errno: 'ENODEV' });
    await expect(map(task, mappable.fd, 1, MAP.PRIVATE)).rejects.toMatchObject({
      errno: 'EINVAL',
      reason: { code: 'gmem-mmap-private' },
    });
    const request = { fd: plain.fd, lengthBytes: PAGE, prot: PROT.READ | PROT.EXEC, flags: MAP.SHARED };
    await expect(task.mmap(request)).rejects.toMatchObject({ errno: 'EPERM', reason: { code: 'no-exec' } });
    await end();
  });

  it('show the memory; a hole reads as zeroes again, and the rest stays', async () => {
    const { task, create, end } = await startBench(PLAIN_FILE);
    const { fd } = await create(4, MMAP | INIT_SHARED);
    const at = await map(task, fd, 4);
    await task.store(at, new Uint8Array(4 * PAGE).fill(0xaa));
    await task.fallocate(fd, HOLE, 0, PAGE);
    expect((await task.load(at, PAGE)).every((byte) => byte === 0)).toBe(true);
    expect((await task.load(at + PAGE, 3 * PAGE)).every((byte) => byte === 0xaa)).toBe(true);
    await end();
  });

  it('give SIGBUS beyond the end and on private pages', async () => {
    const { task, create, end } = await startBench(PLAIN_FILE);
    const shared = await create(2, MMAP | INIT_SHARED);
    const hidden = await create(2, MMAP);
    const at = await map(task, shared.fd, 8);
    await expect(task.store(at, new Uint8Array(8 * PAGE).fill(1))).rejects.toEqual(sigbus);
    expect((await task.load(at, 2 * PAGE)).every((byte) => byte === 1)).toBe(true);
    const dark = await map(task, hidden.fd, 2);
    await expect(task.load(dark, 1)).rejects.toEqual(sigbus);
    await expect(task.store(dark, new Uint8Array(1))).rejects.toBeInstanceOf(UserFault);
    expect(task.fstat(hidden.fd).blocks).toBe(0);
    await end();
  });

  it('keep the file open after its descriptor is closed', async () => {
    const { vm, task, create, end } = await startBench(PLAIN_FILE);
    const { fd } = await create(1, MMAP | INIT_SHARED);
    const at = await map(task, fd, 1);
    await task.close(fd);
    await task.store(at, Uint8Array.of(7));
    expect(vm.references).toBe(2);
    await task.munmap(at, PAGE);
    expect(vm.references).toBe(1);
    await end();
  });

  it('take advice as other files do, except that huge pages cannot be collapsed', async () => {
    const { task, create, end } = await startBench(PLAIN_FILE);
    const { fd } = await create(512, MMAP | INIT_SHARED);
    const at = await map(task, fd, 512);
    await task.store(at, Uint8Array.of(5));
    await task.madvise(at, 512 * PAGE, MADV.HUGEPAGE);
    await expect(task.madvise(at, 512 * PAGE, MADV.COLLAPSE)).rejects.toMatchObject({ errno: 'EINVAL' });
    await task.madvise(at, 512 * PAGE, MADV.DONTNEED);
    expect(await task.load(at, 1)).toEqual(Uint8Array.of(5));
    await end();
  });

  it('carry memory policies of the file, page by page, for all of its mappings', async () => {
    const { task, create, end } = await startBench(PLAIN_FILE);
    const { fd } = await create(4, MMAP | INIT_SHARED);
    const at = await map(task, fd, 4);
    const again = await map(task, fd, 4);
    expect(task.getMempolicy(at)).toEqual({ mode: MPOL.DEFAULT, nodes: [] });
    task.mbind(at, 2 * PAGE, MPOL.BIND, [1]);
    task.mbind(at + 2 * PAGE, 2 * PAGE, MPOL.PREFERRED, [0]);
    expect(task.getMempolicy(again + PAGE)).toEqual({ mode: MPOL.BIND, nodes: [1] });
    expect(() => task.mbind(at, PAGE, 999, [])).toThrow(expect.objectContaining({ errno: 'EINVAL' }));
    const addresses = [0, 1, 2, 3].map((page) => at + page * PAGE);
    await task.fallocate(fd, FALLOC_FL.KEEP_SIZE, 0, 4 * PAGE);
    await task.load(at, 4 * PAGE);
    expect(task.pageNodes(addresses)).toEqual([1, 1, 0, 0]);
    task.mbind(again, 2 * PAGE, MPOL.BIND, [0]);
    task.mbind(again + 2 * PAGE, 2 * PAGE, MPOL.BIND, [1]);
    await task.load(at, 4 * PAGE);
    expect(task.pageNodes(addresses)).toEqual([1, 1, 0, 0]);
    await task.fallocate(fd, HOLE, 0, 4 * PAGE);
    await task.load(at, 4 * PAGE);
    expect(task.pageNodes(addresses)).toEqual([0, 0, 1, 1]);
    task.mbind(at, 4 * PAGE, MPOL.DEFAULT, []);
    expect(task.getMempolicy(at)).toEqual({ mode: MPOL.DEFAULT, nodes: [] });
    await end();
  });

  it('interleave over nodes by page', async () => {
    const { task, create, end } = await startBench(PLAIN_FILE);
    const { fd } = await create(6, MMAP | INIT_SHARED);
    const at = await map(task, fd, 6);
    task.mbind(at, 6 * PAGE, MPOL.INTERLEAVE, [0, 1]);
    await task.load(at, 6 * PAGE);
    const nodes = task.pageNodes([0, 1, 2, 3, 4, 5].map((page) => at + page * PAGE));
    expect(nodes.slice(2)).toEqual(nodes.slice(0, 4));
    expect(nodes[0]).not.toBe(nodes[1]);
    await end();
  });

  it('place what the guest touches first too', async () => {
    const { kernel, vm, task, create, end } = await startBench(SW_PROTECTED_FILE);
    const { fd, file } = await create(4, MMAP);
    const at = await map(task, fd, 4);
    task.mbind(at, 4 * PAGE, MPOL.BIND, [1]);
    await task.munmap(at, 4 * PAGE);
    const slot = await vm.bind(0, file, 0x100, 0, 4);
    expect(kernel.allocator.nodeOf(await vm.touch(slot, 0x102))).toBe(1);
    await end();
  });
});
