import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { GUEST_MEMFD_FLAG } from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL } from '../../../src/abi/system-call-flags.ts';
import { PLAIN_FILE, SNP_FILE, SW_PROTECTED_FILE } from '../../../src/kvm/guest-memfd/technologies.ts';
import { recording, startBench } from './fake-vm.ts';

const { KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, COLLAPSE_RANGE } = FALLOC_FL;
const HOLE = KEEP_SIZE | PUNCH_HOLE;
const PAGE = PAGE_4K;

describe('fallocate on a guest_memfd', () => {
  it('refuses modes, then unaligned ranges, then memory beyond the end', async () => {
    const { task, create, end } = await startBench();
    const { fd } = await create(4);
    const cases: [mode: number, offset: number, length: number, errno: string, code: string][] = [
      [0, 1, 1, 'EOPNOTSUPP', 'gmem-keep-size'],
      [PUNCH_HOLE, 0, PAGE, 'EOPNOTSUPP', 'fallocate-mode'],
      [KEEP_SIZE | ZERO_RANGE, 1, 1, 'EOPNOTSUPP', 'gmem-fallocate-mode'],
      [COLLAPSE_RANGE, 0, PAGE, 'EOPNOTSUPP', 'gmem-keep-size'],
      [KEEP_SIZE, 1, PAGE, 'EINVAL', 'gmem-unaligned'],
      [KEEP_SIZE, 0, PAGE - 1, 'EINVAL', 'gmem-unaligned'],
      [HOLE, PAGE, PAGE + 1, 'EINVAL', 'gmem-unaligned'],
      [KEEP_SIZE, 4 * PAGE, PAGE, 'EINVAL', 'gmem-beyond-end'],
      [KEEP_SIZE, 0, 5 * PAGE, 'EINVAL', 'gmem-beyond-end'],
      [KEEP_SIZE, 0, 0, 'EINVAL', 'fallocate-range'],
      [HOLE, -PAGE, PAGE, 'EINVAL', 'fallocate-range'],
    ];
    for (const [mode, offset, length, errno, code] of cases) {
      await expect(task.fallocate(fd, mode, offset, length)).rejects.toMatchObject({
        errno,
        reason: { code },
      });
    }
    expect(task.fstat(fd).blocks).toBe(0);
    await end();
  });

  it('makes memory once, and holes anywhere, also beyond the end and near 2^63', async () => {
    const { task, create, freePages, end } = await startBench();
    const { fd } = await create(4);
    const free = freePages();
    await task.fallocate(fd, KEEP_SIZE, 0, 4 * PAGE);
    await task.fallocate(fd, KEEP_SIZE, PAGE, 2 * PAGE);
    expect(freePages()).toBe(free - 4);
    expect(task.fstat(fd).blocks).toBe((4 * PAGE) / 512);
    await task.fallocate(fd, HOLE, PAGE, 2 * PAGE);
    expect(freePages()).toBe(free - 2);
    await task.fallocate(fd, HOLE, 4 * PAGE, PAGE);
    await task.fallocate(fd, HOLE, 2n ** 63n - 2n * BigInt(PAGE), BigInt(PAGE));
    await task.fallocate(fd, HOLE, 0, 2n ** 62n);
    expect(freePages()).toBe(free);
    await end();
  });

  it('ends with EINTR and keeps what was made', async () => {
    const { kernel, task, create, end } = await startBench();
    const { fd } = await create(8);
    let points = 0;
    kernel.schedule = async (where) => {
      if (where === 'gmem-allocate' && ++points === 3) task.signal();
    };
    await expect(task.fallocate(fd, KEEP_SIZE, 0, 8 * PAGE)).rejects.toMatchObject({ errno: 'EINTR' });
    expect(task.fstat(fd).blocks).toBe((3 * PAGE) / 512);
    kernel.schedule = null;
    await task.fallocate(fd, KEEP_SIZE, 0, 8 * PAGE);
    expect(task.fstat(fd).blocks).toBe((8 * PAGE) / 512);
    await end();
  });

  it('ends with ENOMEM where memory runs out, and keeps what was made', async () => {
    const { kernel, task, create, end } = await startBench();
    const { fd } = await create(8);
    const first = kernel.allocator.requests;
    kernel.allocator.fault = (purpose, index) => purpose === 'guest_memfd' && index >= first + 5;
    await expect(task.fallocate(fd, KEEP_SIZE, 0, 8 * PAGE)).rejects.toMatchObject({
      errno: 'ENOMEM',
      reason: { code: 'gmem-no-memory', data: { index: 5 } },
    });
    expect(task.fstat(fd).blocks).toBe((5 * PAGE) / 512);
    await end();
  });

  it('takes pages from guests before it punches, in every slot that shows them', async () => {
    const { technology, calls } = recording(SNP_FILE);
    const { task, vm, create, end } = await startBench(technology);
    const { fd, file } = await create(16);
    const low = await vm.bind(0, file, 0x100, 0, 8);
    const high = await vm.bind(1, file, 0x900, 8, 8);
    vm.files.advance('live');
    for (const gfn of [0x106, 0x107]) await vm.touch(low, gfn);
    for (const gfn of [0x900, 0x907]) await vm.touch(high, gfn);
    await task.fallocate(fd, HOLE, 7 * PAGE, 2 * PAGE);
    expect(vm.invalidations).toEqual([
      { startGfn: 0x107, endGfn: 0x108, what: 'private', why: 'punch-hole' },
      { startGfn: 0x900, endGfn: 0x901, what: 'private', why: 'punch-hole' },
    ]);
    expect([...vm.mapped.keys()]).toEqual([0x106, 0x907]);
    expect(calls.filter((call) => call.startsWith('reclaim'))).toEqual(['reclaim 1', 'reclaim 1']);
    await end();
    expect(calls.filter((call) => call.startsWith('reclaim'))).toHaveLength(4);
  });

  it('tells only of shared mappings when the file was shared from the beginning', async () => {
    const { task, vm, create, end } = await startBench(PLAIN_FILE);
    const { fd, file } = await create(4, GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED);
    await vm.bind(0, file, 0, 0, 4);
    await task.fallocate(fd, HOLE, 0, PAGE);
    expect(vm.invalidations[0]).toMatchObject({ what: 'shared', startGfn: 0, endGfn: 1 });
    await end();
  });

  it('goes on after the VM is gone from user space: the file keeps it', async () => {
    const { vm, task, create, end } = await startBench(SW_PROTECTED_FILE);
    const { fd } = await create(4);
    await vm.put();
    expect(vm.references).toBe(1);
    await task.fallocate(fd, KEEP_SIZE, 0, 4 * PAGE);
    await task.fallocate(fd, HOLE, 0, 4 * PAGE);
    vm.get();
    await end();
  });
});
