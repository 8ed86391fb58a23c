/** The cases of the public selftest guest_memfd_test, restated: T1 to T15 run wherever a kernel can be called. */
import { describe, expect, it } from 'vitest';
import { KVM_CAP } from '../../src/abi/kvm/capabilities.ts';
import { GUEST_MEMFD_FLAG, KVM_MEM } from '../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MADV, MAP, MPOL, PROT } from '../../src/abi/system-call-flags.ts';
import { expectFilled, faults, filled, PAGE, refused, type Session, TWO_MIB } from './session.ts';
import { SUBJECTS } from './subjects.ts';

const { KEEP_SIZE, PUNCH_HOLE } = FALLOC_FL;
const HOLE = KEEP_SIZE | PUNCH_HOLE;
const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;
const PAGES = 4;
const SIZE = PAGES * PAGE;
const PATTERN = 0xaa;
const NO_POLICY = 999;

describe.each(SUBJECTS)('guest_memfd_test on $name', ({ start, skipped }) => {
  const test = (name: string, body: (session: Session) => Promise<unknown>): void => {
    it.skipIf(skipped !== null)(name, async () => {
      const subject = await start();
      await body(subject.session);
      await subject.session.end();
      await subject.expectBalanced();
    });
  };
  /** Runs with a file of `SIZE` bytes, once for every set of flags the technology takes. */
  const withFiles = (
    name: string,
    body: (s: Session, file: number, flags: bigint, vm: number) => Promise<unknown>,
  ): void =>
    test(name, async (s) => {
      const vm = await s.createVm();
      const supported = await s.fileFlags(vm);
      const sets = [0n, MMAP, MMAP | INIT_SHARED].filter((flags) => (flags & ~supported) === 0n);
      for (const flags of sets) {
        const file = await s.createFile(vm, SIZE, flags);
        await body(s, file, flags, vm);
        await s.close(file);
      }
    });

  test('flags: each single bit is taken or refused as the capability says', async (s) => {
    const vm = await s.createVm();
    expect(await s.capability(vm, KVM_CAP.GUEST_MEMFD)).toBe(1);
    const supported = await s.fileFlags(vm);
    for (let bit = 0n; bit < 64n; bit++) {
      const flags = 1n << bit;
      if ((flags & supported) === 0n) await refused(s.createFile(vm, PAGE, flags), 'EINVAL');
      else await s.createFile(vm, PAGE, flags);
    }
  });

  test('T1 create_multiple: files have their own sizes and inodes', async (s) => {
    const vm = await s.createVm();
    const one = await s.createFile(vm, PAGE);
    const two = await s.createFile(vm, 2 * PAGE);
    expect(s.calls.fstat(one).sizeBytes).toBe(PAGE);
    expect(s.calls.fstat(two).sizeBytes).toBe(2 * PAGE);
    expect(s.calls.fstat(one).inode).not.toBe(s.calls.fstat(two).inode);
  });

  test('T2 invalid_sizes: nothing but whole pages', async (s) => {
    const vm = await s.createVm();
    const supported = await s.fileFlags(vm);
    for (const flags of [0n, MMAP, MMAP | INIT_SHARED].filter((set) => (set & ~supported) === 0n)) {
      for (const size of [0, 1, 2, 511, 512, 2048, PAGE - 1, PAGE + 1]) {
        await refused(s.createFile(vm, size, flags), 'EINVAL');
      }
      await refused(s.createFile(vm, (1n << 63n) + BigInt(PAGE), flags), 'EINVAL');
    }
  });

  withFiles('T3 file_read_write: no read, no write', async ({ calls }, file) => {
    await refused(calls.read(file, 16), 'EINVAL');
    await refused(calls.write(file, filled(16, 1)), 'EINVAL');
    await refused(calls.pread(file, 16, 0), 'ESPIPE');
    await refused(calls.pwrite(file, filled(16, 1), 0), 'ESPIPE');
    await refused(calls.ftruncate(file, PAGE), 'EINVAL');
  });

  withFiles('T4 mmap_not_supported: without the flag there is no mapping', async (s, file, flags) => {
    if (flags !== 0n) return;
    await refused(s.mapShared(file, PAGE), 'ENODEV');
    await refused(s.mapShared(file, SIZE), 'ENODEV');
  });

  withFiles('T5 mmap_cow: no private mapping', async ({ calls }, file, flags) => {
    const prot = PROT.READ | PROT.WRITE;
    const map = calls.mmap({ lengthBytes: SIZE, prot, flags: MAP.PRIVATE, fd: file });
    await refused(map, flags === 0n ? 'ENODEV' : 'EINVAL');
  });

  withFiles('T6 mmap_supported: bytes are kept, a hole reads zero', async (s, file, flags) => {
    if ((flags & INIT_SHARED) === 0n) return;
    const at = await s.mapShared(file, SIZE);
    await s.calls.store(at, filled(SIZE, PATTERN));
    expectFilled(await s.calls.load(at, SIZE), PATTERN);
    await s.calls.fallocate(file, HOLE, 0, PAGE);
    expectFilled(await s.calls.load(at, PAGE), 0);
    expectFilled(await s.calls.load(at + PAGE, SIZE - PAGE), PATTERN);
    await s.calls.store(at, filled(PAGE, PATTERN));
    expectFilled(await s.calls.load(at, SIZE), PATTERN);
    await s.calls.munmap(at, SIZE);
  });

  withFiles('T7 fault_overflow: SIGBUS behind the end', async (s, file, flags) => {
    if ((flags & INIT_SHARED) === 0n) return;
    const at = await s.mapShared(file, PAGES * SIZE);
    await s.calls.store(at, filled(SIZE, PATTERN));
    await faults(s.calls.store(at + SIZE, filled(1, PATTERN)), 'SIGBUS');
    await faults(s.calls.load(at + 3 * SIZE, 1), 'SIGBUS');
    expectFilled(await s.calls.load(at, SIZE), PATTERN);
    await s.calls.munmap(at, PAGES * SIZE);
  });

  withFiles('T8 fault_private: SIGBUS where pages begin private', async (s, file, flags) => {
    if (flags !== MMAP) return;
    const at = await s.mapShared(file, SIZE);
    for (const offset of [0, PAGE, SIZE - 1]) await faults(s.calls.load(at + offset, 1), 'SIGBUS');
    await s.calls.munmap(at, SIZE);
  });

  withFiles('T9 mbind: policies by address', async (s, file, flags) => {
    if (flags === 0n) return;
    const at = await s.mapShared(file, SIZE);
    const node = s.nodes - 1;
    s.calls.mbind(at, 2 * PAGE, MPOL.INTERLEAVE, [0, node]);
    s.calls.mbind(at + 2 * PAGE, PAGE, MPOL.BIND, [node]);
    const nodes = [...new Set([0, node])];
    expect(s.calls.getMempolicy(at)).toEqual({ mode: MPOL.INTERLEAVE, nodes });
    expect(s.calls.getMempolicy(at + PAGE)).toEqual({ mode: MPOL.INTERLEAVE, nodes });
    expect(s.calls.getMempolicy(at + 2 * PAGE)).toEqual({ mode: MPOL.BIND, nodes: [node] });
    expect(s.calls.getMempolicy(at + 3 * PAGE)).toEqual({ mode: MPOL.DEFAULT, nodes: [] });
    s.calls.mbind(at, 2 * PAGE, MPOL.DEFAULT, []);
    expect(s.calls.getMempolicy(at)).toEqual({ mode: MPOL.DEFAULT, nodes: [] });
    await refused(() => s.calls.mbind(at, PAGE, NO_POLICY, [0]), 'EINVAL');
    await s.calls.munmap(at, SIZE);
  });

  withFiles('T10 numa_allocation: pages come from the nodes of the policy', async (s, file, flags) => {
    if ((flags & INIT_SHARED) === 0n || s.nodes < 2) return;
    const at = await s.mapShared(file, SIZE);
    const pages = [0, 1, 2, 3].map((page) => at + page * PAGE);
    s.calls.mbind(at, 2 * PAGE, MPOL.BIND, [1]);
    s.calls.mbind(at + 2 * PAGE, 2 * PAGE, MPOL.BIND, [0]);
    await s.calls.store(at, filled(SIZE, PATTERN));
    expect(s.calls.pageNodes(pages)).toEqual([1, 1, 0, 0]);
    await s.calls.fallocate(file, HOLE, 0, SIZE);
    s.calls.mbind(at, 2 * PAGE, MPOL.BIND, [0]);
    s.calls.mbind(at + 2 * PAGE, 2 * PAGE, MPOL.BIND, [1]);
    await s.calls.store(at, filled(SIZE, PATTERN));
    expect(s.calls.pageNodes(pages)).toEqual([0, 0, 1, 1]);
    await s.calls.munmap(at, SIZE);
  });

  test('T11 collapse: no huge page is made of small ones', async (s) => {
    const vm = await s.createVm();
    if (((await s.fileFlags(vm)) & INIT_SHARED) === 0n) return;
    const file = await s.createFile(vm, TWO_MIB, MMAP | INIT_SHARED);
    const at = await s.mapShared(file, TWO_MIB);
    await s.calls.store(at, filled(TWO_MIB, PATTERN));
    await s.calls.madvise(at, TWO_MIB, MADV.HUGEPAGE);
    await refused(s.calls.madvise(at, TWO_MIB, MADV.COLLAPSE), 'EINVAL');
    await s.calls.madvise(at, TWO_MIB, MADV.DONTNEED);
    expectFilled(await s.calls.load(at, TWO_MIB), PATTERN);
    await s.calls.munmap(at, TWO_MIB);
  });

  withFiles('T12 file_size: as asked for, in pages', async ({ calls }, file) => {
    expect(calls.fstat(file)).toMatchObject({ sizeBytes: SIZE, blockSizeBytes: PAGE });
  });

  withFiles(
    'T13 fallocate: whole pages, allocated inside the file, punched anywhere',
    async ({ calls }, file) => {
      await calls.fallocate(file, KEEP_SIZE, 0, SIZE);
      await refused(calls.fallocate(file, HOLE, PAGE - 1, PAGE), 'EINVAL');
      await refused(calls.fallocate(file, KEEP_SIZE, SIZE, PAGE), 'EINVAL');
      await refused(calls.fallocate(file, KEEP_SIZE, SIZE + PAGE, PAGE), 'EINVAL');
      await calls.fallocate(file, HOLE, SIZE, PAGE);
      await calls.fallocate(file, HOLE, SIZE + PAGE, PAGE);
      await refused(calls.fallocate(file, HOLE, PAGE, PAGE - 1), 'EINVAL');
      await calls.fallocate(file, HOLE, PAGE, PAGE);
      await calls.fallocate(file, KEEP_SIZE, PAGE, PAGE);
    },
  );

  withFiles(
    'T13 fallocate: no mode but allocation that keeps the size, and holes',
    async ({ calls }, file) => {
      await refused(calls.fallocate(file, 0, 0, PAGE), 'EOPNOTSUPP');
      await refused(calls.fallocate(file, KEEP_SIZE | FALLOC_FL.ZERO_RANGE, 0, PAGE), 'EOPNOTSUPP');
      await refused(calls.fallocate(file, KEEP_SIZE, 0, 0), 'EINVAL');
      await refused(calls.fallocate(file, KEEP_SIZE, -PAGE, PAGE), 'EINVAL');
      await refused(calls.fallocate(file, KEEP_SIZE, 0, 1n << 63n), 'EINVAL');
      await refused(
        calls.fallocate(file, KEEP_SIZE, (1n << 63n) - BigInt(PAGE), BigInt(PAGE)),
        'EFBIG',
        'EINVAL',
      );
    },
  );

  withFiles('T14 invalid_punch_hole: whole pages only', async ({ calls }, file) => {
    const holes = [
      [0, 1],
      [0, PAGE - 1],
      [0, PAGE + 1],
      [1, 1],
      [1, PAGE - 1],
      [1, PAGE],
      [1, PAGE + 1],
      [PAGE, 1],
      [PAGE, PAGE - 1],
      [PAGE, PAGE + 1],
    ] as const;
    for (const [offset, length] of holes)
      await refused(calls.fallocate(file, HOLE, offset, length), 'EINVAL');
  });

  withFiles('T15 invalid_binding: no offset behind the end', async (s, file, _flags, vm) => {
    const region = {
      slot: 0,
      flags: KVM_MEM.GUEST_MEMFD,
      guest_phys_addr: 0n,
      memory_size: BigInt(PAGE),
      guest_memfd: file,
      userspace_addr: BigInt(await s.anonymous(PAGE)),
    };
    const last = (1n << 63n) - BigInt(PAGE);
    if (!s.quirks.bindsAtLastOffset) {
      await refused(s.setRegion(vm, { ...region, guest_memfd_offset: last }), 'EINVAL');
    }
    await refused(s.setRegion(vm, { ...region, guest_memfd_offset: BigInt(SIZE) }), 'EINVAL');
    await s.setRegion(vm, { ...region, guest_memfd_offset: BigInt(SIZE - PAGE) });
    await s.setRegion(vm, { ...region, memory_size: 0n });
    await s.calls.munmap(Number(region.userspace_addr), PAGE);
  });
});
