import { describe, expect, it } from 'vitest';
import { FALLOC_FL, MAP, PROT } from '../../../src/abi/system-call-flags.ts';
import { USER_END } from '../../../src/kernel/process/address-space.ts';
import { CpuException, VECTOR_PF } from '../../../src/machine/exceptions.ts';
import {
  ANONYMOUS,
  bytesOf,
  mapPages,
  outcome,
  READ_WRITE,
  SHARED_ANONYMOUS,
  tinyProcess,
} from './tiny-process.ts';

const PAGE = 4096;

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
