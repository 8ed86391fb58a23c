import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../../src/abi/errno.ts';
import { FALLOC_FL, MADV, MAP, MPOL, MPOL_MF, O, PROT } from '../../../src/abi/system-call-flags.ts';
import { USER_END } from '../../../src/kernel/process/address-space.ts';
import type { MmapRequest } from '../../../src/kernel/process/system-calls.ts';
import { CpuException, VECTOR_PF } from '../../../src/machine/exceptions.ts';
import {
  ANONYMOUS,
  bytesOf,
  fileThat,
  mapPages,
  outcome,
  READ_WRITE,
  SHARED_ANONYMOUS,
  tinyProcess,
} from './tiny-process.ts';

const PAGE = 4096;

describe('mmap', () => {
  const base: MmapRequest = { lengthBytes: PAGE, prot: READ_WRITE, flags: ANONYMOUS };
  it.each<[string, Partial<MmapRequest>, string]>([
    ['an unaligned offset, before anything else', { offset: 1, lengthBytes: 0, fd: -1, flags: 0 }, 'EINVAL'],
    ['a bad descriptor, before the length', { flags: MAP.PRIVATE, fd: 9, lengthBytes: 0 }, 'EBADF'],
    ['no length', { lengthBytes: 0 }, 'EINVAL'],
    ['more than all addresses', { lengthBytes: 2 ** 47 }, 'ENOMEM'],
    ['a negative length', { lengthBytes: -1 }, 'ENOMEM'],
    ['the highest offset, which anonymous memory has no use for', { offset: 2n ** 64n - 4096n }, 'done'],
    ['neither shared nor private', { flags: MAP.ANONYMOUS }, 'EINVAL'],
    ['an unaligned fixed address', { flags: ANONYMOUS | MAP.FIXED, address: 0x10_0001 }, 'EINVAL'],
    ['a fixed address beyond the end', { flags: ANONYMOUS | MAP.FIXED, address: USER_END }, 'ENOMEM'],
    ['a negative fixed address', { flags: ANONYMOUS | MAP.FIXED, address: -PAGE }, 'ENOMEM'],
    ['a fixed address in the lowest 64 KiB', { flags: ANONYMOUS | MAP.FIXED, address: 0xf000 }, 'EPERM'],
    ['an unaligned hint', { address: 0x10_0001 }, 'done'],
  ])('of %s', async (_, changes, wanted) => {
    const { task } = tinyProcess();
    expect(await outcome(() => task.mmap({ ...base, ...changes }))).toBe(wanted);
  });

  it('checks what a file is open for and whether it can be mapped', async () => {
    const { kernel, task } = tinyProcess();
    const readable = fileThat({ mmap: () => undefined });
    const openFor = (flags: number) => task.installFile(readable, { flags });
    const map = (fd: number, type: number, prot: number) =>
      outcome(() => task.mmap({ lengthBytes: PAGE, prot, flags: type, fd }));
    const [reads, writes] = [await openFor(O.RDONLY), await openFor(O.WRONLY)];
    expect(await map(reads, MAP.SHARED, READ_WRITE)).toBe('EACCES');
    expect(await map(reads, MAP.SHARED, PROT.READ)).toBe('done');
    expect(await map(reads, MAP.PRIVATE, READ_WRITE)).toBe('done');
    expect(await map(writes, MAP.PRIVATE, PROT.READ)).toBe('EACCES');
    expect(await map(reads, MAP.SHARED_VALIDATE | 0x40_0000, PROT.READ)).toBe('EOPNOTSUPP');
    expect(await map(await task.installFile(fileThat()), MAP.SHARED, PROT.READ)).toBe('ENODEV');
    await task.exit();
    expect(kernel.openObjects.all).toEqual({});
  });

  it('reaches offsets of 63 bits in files that have blocks, and of 64 in others', async () => {
    const { task } = tinyProcess();
    const memfd = task.memfdCreate('x');
    const device = await task.installFile(fileThat());
    const map = (fd: number, offset: bigint) =>
      outcome(() => task.mmap({ lengthBytes: PAGE, prot: PROT.READ, flags: MAP.SHARED, fd, offset }));
    expect(await map(memfd, 2n ** 63n - 4096n)).toBe('EOVERFLOW');
    expect(await map(memfd, 2n ** 63n)).toBe('EOVERFLOW');
    expect(await map(memfd, 2n ** 63n - 16384n)).toBe('done');
    expect(await map(device, 2n ** 63n)).toBe('ENODEV');
  });

  it('gives the highest free range, and the hint where it is free', async () => {
    const { task } = tinyProcess();
    const first = await mapPages(task, 2);
    expect(first).toBe(USER_END - 2 * PAGE);
    expect(await mapPages(task, 1)).toBe(first - PAGE);
    const hinted = await task.mmap({ ...base, address: 0x5000_0123 });
    expect(hinted).toBe(0x5000_0000);
    expect(await task.mmap({ ...base, address: 0x5000_0000 })).toBe(first - 2 * PAGE);
    await task.munmap(first, PAGE);
    expect(await mapPages(task, 1)).toBe(first);
  });

  it('replaces what is there with MAP_FIXED, and refuses to with MAP_FIXED_NOREPLACE', async () => {
    const { task, usedPages } = tinyProcess();
    const at = await mapPages(task, 3);
    await task.store(at, bytesOf(1, 3 * PAGE));
    const fixed = { ...base, address: at + PAGE };
    expect(await outcome(() => task.mmap({ ...fixed, flags: ANONYMOUS | MAP.FIXED_NOREPLACE }))).toBe(
      'EEXIST',
    );
    expect(await task.mmap({ ...fixed, flags: ANONYMOUS | MAP.FIXED })).toBe(at + PAGE);
    expect(usedPages()).toBe(2);
    const bytes = await task.load(at, 3 * PAGE);
    expect([bytes[0], bytes[PAGE], bytes[2 * PAGE]]).toEqual([1, 0, 1]);
  });

  it('keeps what is there when the file refuses', async () => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 1);
    await task.store(at, bytesOf(5));
    const fd = await task.installFile(fileThat());
    const request = { lengthBytes: PAGE, prot: PROT.READ, flags: MAP.SHARED | MAP.FIXED, fd, address: at };
    expect(await outcome(() => task.mmap(request))).toBe('ENODEV');
    expect((await task.load(at, 1))[0]).toBe(5);
  });

  it('makes the pages at once with MAP_POPULATE', async () => {
    const { task, usedPages } = tinyProcess();
    await mapPages(task, 4, ANONYMOUS | MAP.POPULATE);
    expect(usedPages()).toBe(4);
  });
});

describe('loads and stores', () => {
  it('see zeroes first and then what was stored, across pages', async () => {
    const { task, usedPages } = tinyProcess();
    const at = await mapPages(task, 3);
    expect(usedPages()).toBe(0);
    expect(await task.load(at + 10, 20)).toEqual(new Uint8Array(20));
    const bytes = Uint8Array.from({ length: 6000 }, (_, i) => i);
    await task.store(at + 4000, bytes);
    expect(await task.load(at + 4000, 6000)).toEqual(bytes);
    expect(usedPages()).toBe(3);
    expect(await task.load(at, 0)).toEqual(new Uint8Array(0));
  });

  it('are SIGSEGV where nothing is mapped or the mapping forbids it', async () => {
    const { task } = tinyProcess();
    const only = async (prot: number): Promise<number> =>
      task.mmap({ lengthBytes: PAGE, prot, flags: ANONYMOUS });
    const [none, reads] = [await only(PROT.NONE), await only(PROT.READ)];
    expect(await outcome(() => task.load(none, 1))).toBe('SIGSEGV');
    expect(await outcome(() => task.load(reads, 1))).toBe('done');
    expect(await outcome(() => task.store(reads, bytesOf(1, 1)))).toBe('SIGSEGV');
    for (const address of [0, -1, 0x5000, USER_END, 2 ** 63, Number.NaN, 0.5]) {
      expect(await outcome(() => task.load(address, 1))).toBe('SIGSEGV');
      expect(await outcome(() => task.store(address, bytesOf(1, 1)))).toBe('SIGSEGV');
    }
  });

  it('keep what was stored before a fault', async () => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 2);
    await task.munmap(at + PAGE, PAGE);
    await expect(task.store(at, bytesOf(3, 2 * PAGE))).rejects.toMatchObject({ address: at + PAGE });
    expect((await task.load(at + PAGE - 1, 1))[0]).toBe(3);
  });

  it('are SIGBUS on poisoned lines, and SIGSEGV where the machine refuses the host', async () => {
    const { kernel, task } = tinyProcess();
    const at = await mapPages(task, 1);
    await task.store(at, bytesOf(1));
    const pfn = task.process.memory.pfnAt(at / PAGE)!;
    kernel.machine.memory.write(pfn * PAGE, bytesOf(2, 64), 9);
    kernel.machine.memory.write(pfn * PAGE, bytesOf(3, 1), 0);
    expect(await outcome(() => task.load(at, 1))).toBe('SIGBUS');
    expect(await outcome(() => task.copyIn(at, 1))).toBe('EFAULT');
    kernel.machine.hostAccess = () => {
      throw new CpuException(VECTOR_PF, 'the page is a guest’s');
    };
    expect(await outcome(() => task.store(at, bytesOf(1)))).toBe('SIGSEGV');
    expect(await outcome(() => task.copyOut(at, bytesOf(1)))).toBe('EFAULT');
  });

  it('are SIGBUS when no memory is left', async () => {
    const { kernel, task } = tinyProcess();
    const at = await mapPages(task, 1);
    kernel.allocator.fault = () => true;
    expect(await outcome(() => task.store(at, bytesOf(1)))).toBe('SIGBUS');
    kernel.allocator.fault = null;
    expect(await outcome(() => task.store(at, bytesOf(1)))).toBe('done');
  });

  it('go through the processor that the thread runs on', async () => {
    const { kernel, task } = tinyProcess();
    const at = await mapPages(task, 2);
    task.cpu = 2;
    await task.store(at, bytesOf(1));
    const pfn = task.process.memory.pfnAt(at / PAGE)!;
    expect(kernel.allocator.nodeOf(pfn)).toBe(1);
  });
});

describe('shared memory', () => {
  it('is the same in all mappings of a file, and ends with the file', async () => {
    const { task } = tinyProcess();
    const fd = task.memfdCreate('shared');
    await task.ftruncate(fd, 2 * PAGE);
    const map = () => task.mmap({ lengthBytes: 4 * PAGE, prot: READ_WRITE, flags: MAP.SHARED, fd });
    const [a, b] = [await map(), await map()];
    await task.store(a + PAGE, bytesOf(9));
    expect((await task.load(b + PAGE, 1))[0]).toBe(9);
    expect((await task.pread(fd, 1, PAGE))[0]).toBe(9);
    expect(await outcome(() => task.load(a + 2 * PAGE, 1))).toBe('SIGBUS');
    await task.ftruncate(fd, PAGE);
    expect(await outcome(() => task.load(b + PAGE, 1))).toBe('SIGBUS');
    await task.ftruncate(fd, 2 * PAGE);
    expect((await task.load(b + PAGE, 1))[0]).toBe(0);
  });

  it('lives as long as it is mapped', async () => {
    const { kernel, task, usedPages } = tinyProcess();
    const fd = task.memfdCreate('mapped');
    await task.ftruncate(fd, PAGE);
    const at = await task.mmap({ lengthBytes: PAGE, prot: READ_WRITE, flags: MAP.SHARED, fd });
    await task.close(fd);
    await task.store(at, bytesOf(1));
    expect([kernel.openObjects.count('memfd'), usedPages()]).toEqual([1, 1]);
    await task.munmap(at, PAGE);
    expect([kernel.openObjects.count('memfd'), usedPages()]).toEqual([0, 0]);
  });

  it('is copied on a write to a private mapping of a file', async () => {
    const { task, usedPages } = tinyProcess();
    const fd = task.memfdCreate('original');
    await task.write(fd, bytesOf(4, 2 * PAGE));
    const at = await task.mmap({ lengthBytes: 2 * PAGE, prot: READ_WRITE, flags: MAP.PRIVATE, fd });
    expect((await task.load(at, 1))[0]).toBe(4);
    await task.store(at, bytesOf(5, 1));
    expect([...(await task.load(at, 2))]).toEqual([5, 4]);
    expect((await task.pread(fd, 1, 0))[0]).toBe(4);
    expect(usedPages()).toBe(3);
    await task.fallocate(fd, FALLOC_FL.PUNCH_HOLE | FALLOC_FL.KEEP_SIZE, 0, 2 * PAGE);
    expect((await task.load(at, 1))[0]).toBe(5);
    expect((await task.load(at + PAGE, 1))[0]).toBe(0);
  });

  it('reaches a forked child when it is anonymous', async () => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 1, SHARED_ANONYMOUS);
    const child = await task.fork();
    await child.store(at, bytesOf(8));
    expect((await task.load(at, 1))[0]).toBe(8);
  });
});

describe('munmap', () => {
  it('takes pages out of the middle of an area and leaves the rest', async () => {
    const { task, usedPages } = tinyProcess();
    const at = await mapPages(task, 5);
    await task.store(at, bytesOf(1, 5 * PAGE));
    await task.munmap(at + PAGE, 2 * PAGE - 100);
    expect(usedPages()).toBe(3);
    expect(await outcome(() => task.load(at + PAGE, 1))).toBe('SIGSEGV');
    expect([(await task.load(at, 1))[0], (await task.load(at + 3 * PAGE, 1))[0]]).toEqual([1, 1]);
    await task.munmap(0x10_0000, USER_END - 0x10_0000);
    expect([usedPages(), task.process.memory.areas.all.length]).toEqual([0, 0]);
  });

  it.each([
    ['an unaligned address', 0x10_0001, PAGE],
    ['no length', 0x10_0000, 0],
    ['a range beyond the end', USER_END, PAGE],
    ['a negative address', -PAGE, PAGE],
    ['a negative length', 0x10_0000, -PAGE],
  ])('is EINVAL for %s', async (_, address, length) => {
    const { task } = tinyProcess();
    expect(await outcome(() => task.munmap(address, length))).toBe('EINVAL');
  });
});

describe('madvise', () => {
  it('drops pages with MADV_DONTNEED: private ones are lost, those of files are not', async () => {
    const { task, usedPages } = tinyProcess();
    const mine = await mapPages(task, 2);
    const ours = await mapPages(task, 1, SHARED_ANONYMOUS);
    await task.store(mine, bytesOf(1, 2 * PAGE));
    await task.store(ours, bytesOf(2));
    await task.madvise(mine, PAGE, MADV.DONTNEED);
    await task.madvise(ours, PAGE, MADV.DONTNEED);
    expect(usedPages()).toBe(2);
    expect([(await task.load(mine, 1))[0], (await task.load(mine + PAGE, 1))[0]]).toEqual([0, 1]);
    expect((await task.load(ours, 1))[0]).toBe(2);
  });

  it('punches holes with MADV_REMOVE, where the mapping is shared and writable', async () => {
    const { task } = tinyProcess();
    const ours = await mapPages(task, 2, SHARED_ANONYMOUS);
    await task.store(ours, bytesOf(2, 2 * PAGE));
    await task.madvise(ours + PAGE, PAGE, MADV.REMOVE);
    expect([(await task.load(ours, 1))[0], (await task.load(ours + PAGE, 1))[0]]).toEqual([2, 0]);
    expect(await outcome(async () => task.madvise(await mapPages(task, 1), PAGE, MADV.REMOVE))).toBe(
      'EINVAL',
    );
    const fd = task.memfdCreate('private');
    const private_ = await task.mmap({ lengthBytes: PAGE, prot: READ_WRITE, flags: MAP.PRIVATE, fd });
    expect(await outcome(() => task.madvise(private_, PAGE, MADV.REMOVE))).toBe('EACCES');
  });

  it('makes pages with MADV_POPULATE, and says why it cannot', async () => {
    const { task, usedPages } = tinyProcess();
    const at = await mapPages(task, 3);
    await task.madvise(at, 2 * PAGE, MADV.POPULATE_WRITE);
    await task.madvise(at, 3 * PAGE, MADV.POPULATE_READ);
    expect(usedPages()).toBe(3);
    const reads = await task.mmap({ lengthBytes: PAGE, prot: PROT.READ, flags: ANONYMOUS });
    expect(await outcome(() => task.madvise(reads, PAGE, MADV.POPULATE_WRITE))).toBe('EINVAL');
    const fd = task.memfdCreate('empty');
    const empty = await task.mmap({ lengthBytes: PAGE, prot: PROT.READ, flags: MAP.SHARED, fd });
    expect(await outcome(() => task.madvise(empty, PAGE, MADV.POPULATE_READ))).toBe('EFAULT');
  });

  it('checks the advice, then the range, then what is mapped', async () => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 1);
    expect(await outcome(() => task.madvise(1, 0, 999))).toBe('EINVAL');
    expect(await outcome(() => task.madvise(at + 1, PAGE, MADV.DONTNEED))).toBe('EINVAL');
    expect(await outcome(() => task.madvise(at, -1, MADV.NORMAL))).toBe('EINVAL');
    expect(await outcome(() => task.madvise(at, 2 ** 50, MADV.NORMAL))).toBe('ENOMEM');
    expect(await outcome(() => task.madvise(at - PAGE, 2 * PAGE, MADV.HUGEPAGE))).toBe('ENOMEM');
    expect(await outcome(() => task.madvise(at, PAGE, MADV.HUGEPAGE))).toBe('done');
    expect(await outcome(() => task.madvise(at, PAGE, MADV.COLLAPSE))).toBe('EINVAL');
    expect(await outcome(() => task.madvise(0x10_0000, 0, MADV.NORMAL))).toBe('done');
  });

  it('keeps areas from a forked child with MADV_DONTFORK', async () => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 3);
    await task.madvise(at + PAGE, PAGE, MADV.DONTFORK);
    const child = await task.fork();
    expect(await outcome(() => child.load(at + PAGE, 1))).toBe('SIGSEGV');
    expect(await outcome(() => child.load(at + 2 * PAGE, 1))).toBe('done');
    await task.madvise(at, 3 * PAGE, MADV.DOFORK);
    const second = await task.fork();
    expect(await outcome(() => second.load(at + PAGE, 1))).toBe('done');
  });
});

describe('memory policies', () => {
  const nodesOf = (at: number, pages: number, task: ReturnType<typeof tinyProcess>['task']) =>
    task.pageNodes(Array.from({ length: pages }, (_, i) => at + i * PAGE));

  it.each([
    ['private', ANONYMOUS],
    ['shared', SHARED_ANONYMOUS],
  ])('decide where %s memory is made', async (_, flags) => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 8, flags);
    task.mbind(at, 4 * PAGE, MPOL.INTERLEAVE, [1, 0]);
    task.mbind(at + 4 * PAGE, 2 * PAGE, MPOL.BIND, [1]);
    task.mbind(at + 6 * PAGE, PAGE, MPOL.PREFERRED, [1]);
    await task.store(at, bytesOf(1, 8 * PAGE));
    const nodes = nodesOf(at, 8, task);
    expect([...nodes.slice(0, 4)].sort()).toEqual([0, 0, 1, 1]);
    expect(nodes[0]).not.toBe(nodes[1]);
    expect(nodes.slice(4)).toEqual([1, 1, 1, 0]);
    expect(task.getMempolicy(at + 3 * PAGE)).toEqual({ mode: MPOL.INTERLEAVE, nodes: [0, 1] });
    expect(task.getMempolicy(at + 5 * PAGE)).toEqual({ mode: MPOL.BIND, nodes: [1] });
    expect(task.getMempolicy(at + 7 * PAGE)).toEqual({ mode: MPOL.DEFAULT, nodes: [] });
    task.mbind(at, 8 * PAGE, MPOL.DEFAULT, []);
    expect(task.getMempolicy(at)).toEqual({ mode: MPOL.DEFAULT, nodes: [] });
  });

  it('take effect for pages that are made again, and say so with MPOL_MF_STRICT', async () => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 1);
    await task.store(at, bytesOf(1));
    expect(await outcome(() => task.mbind(at, PAGE, MPOL.BIND, [1], MPOL_MF.STRICT))).toBe('EIO');
    task.mbind(at, PAGE, MPOL.BIND, [1]);
    expect(nodesOf(at, 1, task)).toEqual([0]);
    await task.madvise(at, PAGE, MADV.DONTNEED);
    await task.store(at, bytesOf(1));
    expect(nodesOf(at, 1, task)).toEqual([1]);
  });

  it('keep to their nodes when those are full, or do not', async () => {
    const { kernel, task } = tinyProcess();
    const at = await mapPages(task, 2);
    task.mbind(at, PAGE, MPOL.BIND, [1]);
    task.mbind(at + PAGE, PAGE, MPOL.PREFERRED, [1]);
    const filler = { node: 1, fallback: false, purpose: 'filler' };
    for (let order = 10; order >= 0; order--) while (kernel.allocator.allocPages(order, filler) !== null);
    expect(await outcome(() => task.store(at, bytesOf(1)))).toBe('SIGBUS');
    await task.store(at + PAGE, bytesOf(1));
    expect(nodesOf(at, 2, task)).toEqual([-ERRNO.EFAULT, 0]);
    expect(task.pageNodes([0x10_0000])).toEqual([-ERRNO.EFAULT]);
  });

  it.each<[string, number, readonly number[], number, string]>([
    ['weighted interleaving', MPOL.WEIGHTED_INTERLEAVE, [0, 1], 0, 'done'],
    ['an unknown mode', 999, [0], 0, 'EINVAL'],
    ['a negative mode', -1, [0], 0, 'EINVAL'],
    ['an unknown flag', MPOL.BIND, [0], 8, 'EINVAL'],
    ['BIND without nodes', MPOL.BIND, [], 0, 'EINVAL'],
    ['BIND to nodes that have no memory', MPOL.BIND, [7, -1, Number.NaN], 0, 'EINVAL'],
    ['INTERLEAVE without nodes', MPOL.INTERLEAVE, [], 0, 'EINVAL'],
    ['DEFAULT with nodes', MPOL.DEFAULT, [0], 0, 'EINVAL'],
    ['LOCAL with nodes', MPOL.LOCAL, [0], 0, 'EINVAL'],
    ['PREFERRED without nodes, which is LOCAL', MPOL.PREFERRED, [], 0, 'done'],
    ['several preferred nodes', MPOL.PREFERRED_MANY, [1, 0], 0, 'done'],
  ])('are checked: %s', async (_, mode, nodes, flags, wanted) => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 1);
    expect(await outcome(() => task.mbind(at, PAGE, mode, nodes, flags))).toBe(wanted);
  });

  it('need mapped memory from a page on', async () => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 1);
    expect(await outcome(() => task.mbind(at + 1, PAGE, MPOL.BIND, [0]))).toBe('EINVAL');
    expect(await outcome(() => task.mbind(at - PAGE, 2 * PAGE, MPOL.BIND, [0]))).toBe('EFAULT');
    expect(await outcome(() => task.mbind(at - PAGE, 2 * PAGE, MPOL.DEFAULT, []))).toBe('done');
    expect(await outcome(() => task.mbind(at - PAGE, PAGE, MPOL.DEFAULT, []))).toBe('EFAULT');
    expect(await outcome(() => task.mbind(at, -PAGE, MPOL.BIND, [0]))).toBe('EINVAL');
    for (const length of [0, -1]) {
      expect(await outcome(() => task.mbind(0x10_0000, length, MPOL.BIND, []))).toBe('done');
    }
    expect(await outcome(() => task.mbind(0x10_0000, 0, 999, []))).toBe('EINVAL');
    expect(await outcome(() => task.getMempolicy(0x10_0000))).toBe('EFAULT');
    expect(await outcome(() => task.getMempolicy(-1))).toBe('EFAULT');
  });
});
