import { describe, expect, it } from 'vitest';
import { MAP } from '../../../src/abi/system-call-flags.ts';
import { bytesOf, mapPages, outcome, READ_WRITE, tinyProcess } from './tiny-process.ts';

const PAGE = 4096;

describe('fork', () => {
  it('gives both sides their own private memory, copied when either writes', async () => {
    const { task, usedPages } = tinyProcess();
    const at = await mapPages(task, 3);
    await task.store(at, bytesOf(1, 3 * PAGE));
    const child = await task.fork();
    expect(usedPages()).toBe(3);
    await task.store(at, bytesOf(2, 1));
    await child.store(at + PAGE, bytesOf(3, 1));
    expect(usedPages()).toBe(5);
    const firstBytes = async (of: typeof task) =>
      (await of.load(at, 3 * PAGE)).filter((_, i) => i % PAGE === 0);
    expect([...(await firstBytes(task))]).toEqual([2, 1, 1]);
    expect([...(await firstBytes(child))]).toEqual([1, 3, 1]);
    await task.exit();
    expect(usedPages()).toBe(3);
    const [before] = [child.process.memory.pfnAt(at / PAGE)];
    await child.store(at, bytesOf(4));
    expect(child.process.memory.pfnAt(at / PAGE)).toBe(before);
    await child.exit();
    expect(usedPages()).toBe(0);
  });

  it('shares open files, with their positions, until both have closed them', async () => {
    const { kernel, task } = tinyProcess();
    const fd = task.memfdCreate('both');
    await task.write(fd, bytesOf(1, 10));
    await task.pwrite(fd, bytesOf(2, 10), 10);
    const child = await task.fork();
    expect((await child.read(fd, 4)).length).toBe(4);
    expect(task.fdinfo(fd).pos).toBe('14');
    await task.exit();
    expect(kernel.openObjects.all).toEqual({ process: 1, memfd: 1 });
    await child.exit();
    expect(kernel.openObjects.all).toEqual({});
  });

  it('gives the child the same mappings of files', async () => {
    const { task } = tinyProcess();
    const fd = task.memfdCreate('mapped');
    await task.write(fd, bytesOf(1));
    const at = await task.mmap({ lengthBytes: PAGE, prot: READ_WRITE, flags: MAP.SHARED, fd });
    const child = await task.fork();
    await child.store(at, bytesOf(5, 1));
    expect([...(await task.load(at, 2))]).toEqual([5, 1]);
    await task.ftruncate(fd, 0);
    expect(await outcome(() => child.load(at, 1))).toBe('SIGBUS');
  });

  it('is ENOMEM when pages that a device uses cannot be copied, and leaves nothing', async () => {
    const { kernel, task, usedPages } = tinyProcess();
    const fd = task.memfdCreate('open');
    const at = await mapPages(task, 1);
    await task.store(at, bytesOf(1));
    const pfn = task.process.memory.pfnAt(at / PAGE)!;
    kernel.pageRefs.pin(pfn);
    kernel.allocator.fault = () => true;
    expect(await outcome(() => task.fork())).toBe('ENOMEM');
    expect(kernel.openObjects.all).toEqual({ process: 1, memfd: 1 });
    kernel.pageRefs.unpin(pfn);
    await task.close(fd);
    await task.exit();
    expect(usedPages()).toBe(0);
  });
});

describe('whoever else maps user memory', () => {
  /** Writes down what it is told. */
  const watch = ({ process }: ReturnType<typeof tinyProcess>['task']) => {
    const told: string[] = [];
    const page = (address: number, base: number) => (address - base) / PAGE;
    let base = 0;
    process.memory.notifiers.add({
      invalidateStart: (start, end) => void told.push(`start ${page(start, base)}-${page(end, base)}`),
      invalidateEnd: (start, end) => void told.push(`end ${page(start, base)}-${page(end, base)}`),
      release: () => void told.push('release'),
    });
    return {
      take: () => told.splice(0),
      from: (address: number) => {
        base = address;
      },
    };
  };

  it('is told before pages go, and when they are gone', async () => {
    const { task } = tinyProcess();
    const watcher = watch(task);
    const at = await mapPages(task, 4);
    watcher.from(at);
    await task.store(at, bytesOf(1, 4 * PAGE));
    expect(watcher.take()).toEqual([]);
    await task.madvise(at, PAGE, 4);
    expect(watcher.take()).toEqual(['start 0-1', 'end 0-1']);
    await task.munmap(at + PAGE, PAGE);
    expect(watcher.take()).toEqual(['start 1-2', 'end 1-2']);
    const child = await task.fork();
    expect(watcher.take()).toEqual([expect.stringMatching(/^start -/), expect.stringMatching(/^end -/)]);
    await task.store(at + 2 * PAGE, bytesOf(2, 1));
    expect(watcher.take()).toEqual(['start 2-3', 'end 2-3']);
    await child.exit();
    await task.exit();
    expect(watcher.take()[0]).toBe('release');
  });

  it('is told of pages that a file loses', async () => {
    const { task } = tinyProcess();
    const watcher = watch(task);
    const fd = task.memfdCreate('cut');
    await task.ftruncate(fd, 4 * PAGE);
    const at = await task.mmap({
      lengthBytes: 2 * PAGE,
      prot: READ_WRITE,
      flags: MAP.SHARED,
      fd,
      offset: PAGE,
    });
    watcher.from(at);
    await task.fallocate(fd, 3, 0, 2 * PAGE);
    expect(watcher.take()).toEqual(['start 0-1', 'end 0-1']);
  });
});
