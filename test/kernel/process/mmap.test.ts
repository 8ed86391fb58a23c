import { describe, expect, it } from 'vitest';
import { MAP, O, PROT } from '../../../src/abi/system-call-flags.ts';
import { USER_END } from '../../../src/kernel/process/address-space.ts';
import type { MmapRequest } from '../../../src/kernel/process/system-calls.ts';
import { ANONYMOUS, bytesOf, fileThat, mapPages, outcome, READ_WRITE, tinyProcess } from './tiny-process.ts';

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

  it('gives threads that map at the same time different places', async () => {
    const { task } = tinyProcess();
    const other = task.process.thread(1);
    const map = (thread: typeof task, flags: number) => thread.mmap({ ...base, flags });
    for (const flags of [ANONYMOUS, MAP.SHARED | MAP.ANONYMOUS]) {
      const [first, second] = await Promise.all([map(task, flags), map(other, flags)]);
      expect(first).not.toBe(second);
      await task.store(first, Uint8Array.of(1));
      await other.store(second, Uint8Array.of(2));
      expect(await task.load(first, 1)).toEqual(Uint8Array.of(1));
    }
    const fixed = { ...base, flags: ANONYMOUS | MAP.FIXED_NOREPLACE, address: 0x10_0000 };
    const outcomes = await Promise.all([task, other].map((thread) => outcome(() => thread.mmap(fixed))));
    expect(outcomes.sort()).toEqual(['EEXIST', 'done']);
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
