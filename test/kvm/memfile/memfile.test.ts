import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { FALLOC_FL, MAP, MFD, PROT } from '../../../src/abi/system-call-flags.ts';
import { SNP_FILE } from '../../../src/kvm/guest-memfd/technologies.ts';
import { type MemfileBacking, memfileAt } from '../../../src/kvm/memfile/backing.ts';
import { createMemfile } from '../../../src/kvm/memfile/memfile.ts';
import type { Memslot } from '../../../src/kvm/memslots.ts';
import { type Bench, recording, startBench } from '../guest-memfd/fake-vm.ts';

const { KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE } = FALLOC_FL;
const HOLE = KEEP_SIZE | PUNCH_HOLE;
const PAGE = PAGE_4K;

async function startMemfileBench(): Promise<
  Bench & { calls: string[]; make(pages: number): Promise<number> }
> {
  const { technology, calls } = recording(SNP_FILE);
  const bench = await startBench(technology, { memfile: true });
  const { kernel, task } = bench;
  kernel.inaccessibleMemfd = (name, flags) => createMemfile(kernel, name, flags);
  const make = async (pages: number): Promise<number> => {
    const fd = task.memfdCreate('private', MFD.INACCESSIBLE);
    await task.ftruncate(fd, pages * PAGE);
    return fd;
  };
  return { ...bench, calls, make };
}

/** A slot for `pages` pages of the file from `index` on. */
async function bind(bench: Bench, fd: number, baseGfn: number, index: number, pages: number) {
  const backing = memfileAt(bench.vm, bench.task, fd);
  const slot: Memslot = {
    id: baseGfn,
    baseGfn,
    pages,
    flags: 4,
    userspaceAddress: 0,
    backing: null,
    backingIndex: index,
    isBackingOnly: backing.isBackingOnly,
  };
  await backing.bind(slot);
  return { slot, backing: backing as MemfileBacking };
}

describe('private memory by an inaccessible memfd', () => {
  it('is reached by no system call but fallocate', async () => {
    const { kernel, task, make, end } = await startMemfileBench();
    const fd = await make(4);
    const refused = { errno: 'EPERM', reason: { code: 'memfile-inaccessible' } };
    await expect(task.read(fd, 1)).rejects.toMatchObject(refused);
    await expect(task.pwrite(fd, new Uint8Array(1), 0)).rejects.toMatchObject(refused);
    const prot = PROT.READ;
    await expect(task.mmap({ fd, lengthBytes: PAGE, prot, flags: MAP.SHARED })).rejects.toMatchObject(
      refused,
    );
    await expect(task.mmap({ fd, lengthBytes: PAGE, prot, flags: MAP.PRIVATE })).rejects.toMatchObject(
      refused,
    );
    await expect(task.ftruncate(fd, 8 * PAGE)).rejects.toMatchObject(refused);
    expect(() => task.memfdCreate('x', MFD.INACCESSIBLE | MFD.ALLOW_SEALING)).toThrow(
      expect.objectContaining({ errno: 'EINVAL' }),
    );
    const empty = task.memfdCreate('y', MFD.INACCESSIBLE);
    await expect(task.ftruncate(empty, 1)).rejects.toMatchObject({ errno: 'EINVAL' });
    kernel.inaccessibleMemfd = null;
    // Without the design the bit is today's MFD_NOEXEC_SEAL, of an ordinary memfd.
    expect(task.process.files.get(task.memfdCreate('z', MFD.INACCESSIBLE)).object.kind).toBe('memfd');
    await end();
  });

  it('is private where it has a page: fallocate converts, and a hole converts back', async () => {
    const bench = await startMemfileBench();
    const { task, vm, calls, make, end } = bench;
    const fd = await make(8);
    const { slot, backing } = await bind(bench, fd, 0x100, 2, 4);
    expect(backing.isPrivate(slot, 0x100)).toBe(false);
    expect(backing.isUniform(slot, 0x100, 0x104)).toBe(true);
    await expect(backing.guestPage(slot, 0x100)).rejects.toMatchObject({ errno: 'EFAULT' });
    await task.fallocate(fd, 0, 0, 3 * PAGE);
    expect(vm.invalidations).toEqual([{ startGfn: 0x100, endGfn: 0x101, what: 'shared', why: 'populate' }]);
    expect(backing.isPrivate(slot, 0x100)).toBe(true);
    expect(backing.isPrivate(slot, 0x101)).toBe(false);
    expect(backing.isUniform(slot, 0x100, 0x104)).toBe(false);
    const pfn = await vm.touch(slot, 0x100);
    expect(await backing.guestPage(slot, 0x100)).toEqual({ pfn, maxOrder: 0 });
    expect(calls).toEqual(['prepare 256 0', 'prepare 256 0']);
    await task.fallocate(fd, HOLE, 0, 8 * PAGE);
    expect(vm.invalidations[1]).toEqual({
      startGfn: 0x100,
      endGfn: 0x104,
      what: 'private',
      why: 'punch-hole',
    });
    expect(calls.slice(2)).toEqual(['reclaim 1']);
    expect(vm.mapped.size).toBe(0);
    expect(backing.isPrivate(slot, 0x100)).toBe(false);
    expect(task.fstat(fd).blocks).toBe(0);
    await backing.unbind(slot);
    await end();
  });

  it('undoes an allocation that does not come to its end', async () => {
    const { kernel, task, make, end } = await startMemfileBench();
    const fd = await make(8);
    await task.fallocate(fd, 0, 2 * PAGE, PAGE);
    const first = kernel.allocator.requests;
    kernel.allocator.fault = (_purpose, index) => index >= first + 3;
    await expect(task.fallocate(fd, 0, 0, 8 * PAGE)).rejects.toMatchObject({ errno: 'ENOSPC' });
    expect(task.fstat(fd).blocks).toBe(PAGE / 512);
    kernel.allocator.fault = null;
    let points = 0;
    kernel.schedule = async () => {
      if (++points === 2) task.signal();
    };
    await expect(task.fallocate(fd, 0, 0, 8 * PAGE)).rejects.toMatchObject({ errno: 'EINTR' });
    expect(task.fstat(fd).blocks).toBe(PAGE / 512);
    kernel.schedule = null;
    await end();
  });

  it('takes modes of a memfd, grows without KEEP_SIZE, and has holes of whole pages only', async () => {
    const { task, make, end } = await startMemfileBench();
    const fd = await make(1);
    await task.fallocate(fd, KEEP_SIZE, 4 * PAGE, PAGE);
    expect(task.fstat(fd)).toMatchObject({ sizeBytes: PAGE, blocks: 8 });
    await task.fallocate(fd, 0, 1, PAGE);
    expect(task.fstat(fd)).toMatchObject({ sizeBytes: PAGE + 1, blocks: 24 });
    await expect(task.fallocate(fd, HOLE, 1, PAGE)).rejects.toMatchObject({ errno: 'EINVAL' });
    await expect(task.fallocate(fd, ZERO_RANGE, 0, PAGE)).rejects.toMatchObject({ errno: 'EOPNOTSUPP' });
    await end();
  });

  it('may be shown by several slots, which keep it open', async () => {
    const bench = await startMemfileBench();
    const { kernel, task, vm, make, end } = bench;
    const fd = await make(4);
    const one = await bind(bench, fd, 0x100, 0, 4);
    const two = await bind(bench, fd, 0x200, 0, 4);
    await task.fallocate(fd, 0, 0, PAGE);
    expect(await vm.touch(one.slot, 0x100)).toBe(await vm.touch(two.slot, 0x200));
    await task.close(fd);
    expect(kernel.openObjects.count('memfile')).toBe(1);
    await one.backing.unbind(one.slot);
    await two.backing.unbind(two.slot);
    await two.backing.unbind(two.slot);
    expect(kernel.openObjects.count('memfile')).toBe(0);
    await end();
  });

  it('must be inaccessible to back a slot', async () => {
    const { vm, task, end } = await startMemfileBench();
    const plain = task.memfdCreate('plain');
    expect(() => memfileAt(vm, task, plain)).toThrow(expect.objectContaining({ errno: 'EINVAL' }));
    expect(() => memfileAt(vm, task, 77)).toThrow(expect.objectContaining({ errno: 'EBADF' }));
    await end();
  });
});
