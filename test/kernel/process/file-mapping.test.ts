import { expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { FALLOC_FL, MAP } from '../../../src/abi/system-call-flags.ts';
import { bytesOf, READ_WRITE, tinyProcess } from './tiny-process.ts';

const PAGES = 3;
const BYTES = PAGES * PAGE_4K;

it('takes a page from every mapping, also of one that another thread cuts in two meanwhile', async () => {
  const { task, usedPages } = tinyProcess();
  const fd = task.memfdCreate('pages');
  await task.ftruncate(fd, BYTES);
  const map = () => task.mmap({ lengthBytes: BYTES, prot: READ_WRITE, flags: MAP.SHARED, fd });
  const maps = [await map(), await map()] as const;
  for (const at of maps) await task.store(at, bytesOf(7, BYTES));
  const { notifiers } = task.process.memory;
  const notifier = {
    // Whoever maps the memory besides the process takes a while to let go of the first mapping.
    invalidateStart: async () => {
      notifiers.delete(notifier);
      await task.thread().munmap(maps[1] + PAGE_4K, PAGE_4K);
    },
    invalidateEnd: () => undefined,
  };
  notifiers.add(notifier);
  await task.fallocate(fd, FALLOC_FL.PUNCH_HOLE | FALLOC_FL.KEEP_SIZE, 0, BYTES);
  expect(usedPages()).toBe(0);
  expect(await task.load(maps[1] + 2 * PAGE_4K, 1)).toEqual(bytesOf(0, 1));
});
