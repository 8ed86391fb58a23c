import { describe, expect, it } from 'vitest';
import { MADV, MAP, PROT } from '../../../src/abi/system-call-flags.ts';
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
