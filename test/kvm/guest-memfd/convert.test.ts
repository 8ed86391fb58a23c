import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import { GUEST_MEMFD_FLAG, KVM_MEMORY_ATTRIBUTES2 } from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MAP, PROT } from '../../../src/abi/system-call-flags.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import { convert } from '../../../src/kvm/guest-memfd/convert.ts';
import { PLAIN_FILE, SNP_FILE, SW_PROTECTED_FILE } from '../../../src/kvm/guest-memfd/technologies.ts';
import { recording, startBench } from './fake-vm.ts';

const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;
const PAGE = PAGE_4K;
const PRIVATE = 8n;
const IN_PLACE = { inPlaceConversion: true };

type Attributes = Parameters<typeof KVM_MEMORY_ATTRIBUTES2.encode>[0];

/** The ioctl; resolves to the buffer as the kernel left it. */
async function setAttributes(task: Task, fd: number, attributes: Attributes): Promise<Uint8Array> {
  const buffer = KVM_MEMORY_ATTRIBUTES2.encode(attributes);
  await task.ioctl(fd, KVM.SET_MEMORY_ATTRIBUTES2, buffer);
  return buffer;
}

const map = (task: Task, fd: number, pages: number): Promise<number> =>
  task.mmap({ fd, lengthBytes: pages * PAGE, prot: PROT.READ | PROT.WRITE, flags: MAP.SHARED });
const sigbus = expect.objectContaining({ name: 'UserFault', signal: 'SIGBUS' });
const bytes = (pages: number): bigint => BigInt(pages * PAGE);

describe('conversion in place', () => {
  it('refuses in the order of the checks', async () => {
    const { task, create, end } = await startBench(SW_PROTECTED_FILE, IN_PLACE);
    const { fd } = await create(4, MMAP | INIT_SHARED);
    const range = { offset: 0n, size: bytes(1) };
    const reserved = [...Array(10).fill(0n), 1n];
    const cases: [Attributes, string][] = [
      [{ flags: 1n, reserved, attributes: 1n }, 'gmem-attributes-flags'],
      [{ ...range, reserved, attributes: 1n }, 'gmem-attributes-reserved'],
      [{ attributes: 4n, size: 0n }, 'gmem-attributes-unknown'],
      [{ attributes: 12n, ...range }, 'gmem-attributes-unknown'],
      [{ attributes: PRIVATE, offset: 1n, size: 0n }, 'gmem-attributes-range'],
      [{ attributes: PRIVATE, offset: 2n ** 64n - bytes(1), size: bytes(1) }, 'gmem-attributes-range'],
      [{ attributes: PRIVATE, offset: 1n, size: bytes(8) }, 'gmem-attributes-unaligned'],
      [{ attributes: PRIVATE, offset: 0n, size: 1n }, 'gmem-attributes-unaligned'],
      [{ attributes: PRIVATE, offset: bytes(4), size: bytes(1) }, 'gmem-attributes-beyond'],
      [{ attributes: PRIVATE, offset: 0n, size: bytes(5) }, 'gmem-attributes-beyond'],
      [{ attributes: PRIVATE, offset: 2n ** 63n, size: bytes(1) }, 'gmem-attributes-beyond'],
    ];
    for (const [attributes, code] of cases) {
      await expect(setAttributes(task, fd, attributes)).rejects.toMatchObject({
        errno: 'EINVAL',
        reason: { code },
      });
    }
    await expect(task.ioctl(fd, KVM.SET_MEMORY_ATTRIBUTES2, new Uint8Array(8))).rejects.toMatchObject({
      errno: 'EFAULT',
    });
    await expect(task.ioctl(fd, KVM.SET_MEMORY_ATTRIBUTES)).rejects.toMatchObject({ errno: 'ENOTTY' });
    await end();
  });

  it('is nothing for VMs without private memory', async () => {
    const { task, create, end } = await startBench(PLAIN_FILE, IN_PLACE);
    const { fd } = await create(1, MMAP | INIT_SHARED);
    await expect(setAttributes(task, fd, { size: bytes(1), attributes: 0n })).rejects.toMatchObject({
      errno: 'EINVAL',
      reason: { code: 'gmem-no-private' },
    });
    await end();
  });

  it('begins as the flag says, takes pages from the host, and gives them back with their bytes', async () => {
    const { task, create, end } = await startBench(SW_PROTECTED_FILE, IN_PLACE);
    const { fd, file } = await create(4, MMAP | INIT_SHARED);
    const hidden = await create(4, MMAP);
    const dark = await map(task, hidden.fd, 4);
    await expect(task.load(dark, 1)).rejects.toEqual(sigbus);
    await setAttributes(task, hidden.fd, { size: bytes(4), attributes: 0n });
    expect(await task.load(dark, 1)).toEqual(Uint8Array.of(0));
    const at = await map(task, fd, 4);
    await task.store(at, new Uint8Array(4 * PAGE).fill(0xaa));
    await setAttributes(task, fd, { offset: bytes(1), size: bytes(2), attributes: PRIVATE });
    expect([0, 1, 2, 3].map((index) => file.inode.isPrivate(index))).toEqual([false, true, true, false]);
    await expect(task.load(at + PAGE, 1)).rejects.toEqual(sigbus);
    await expect(task.store(at + 2 * PAGE, new Uint8Array(1))).rejects.toEqual(sigbus);
    expect(await task.load(at + 3 * PAGE, 1)).toEqual(Uint8Array.of(0xaa));
    await setAttributes(task, fd, { offset: bytes(2), size: bytes(1), attributes: 0n });
    expect(await task.load(at + 2 * PAGE, 1)).toEqual(Uint8Array.of(0xaa));
    await expect(task.load(at + PAGE, 1)).rejects.toEqual(sigbus);
    await end();
  });

  it('keeps attributes over holes, and merges neighbours that are alike', async () => {
    const { task, create, end } = await startBench(SW_PROTECTED_FILE, IN_PLACE);
    const { fd, file } = await create(8, MMAP);
    for (const index of [1, 3, 2])
      await setAttributes(task, fd, { offset: bytes(index), size: bytes(1), attributes: 0n });
    expect(file.inode.convertedRanges).toBe(1);
    await task.fallocate(fd, FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE, 0, 8 * PAGE);
    expect(file.inode.isUniform(1, 4, false)).toBe(true);
    expect(file.inode.isUniform(0, 8, false)).toBe(false);
    await setAttributes(task, fd, { size: bytes(8), attributes: PRIVATE });
    expect(file.inode.convertedRanges).toBe(0);
    await end();
  });

  it('waits for nobody: a pinned page is EAGAIN with its offset, and nothing is converted', async () => {
    const { kernel, task, vm, create, end } = await startBench(SW_PROTECTED_FILE, IN_PLACE);
    const { fd, file } = await create(8, MMAP | INIT_SHARED);
    const slot = await vm.bind(0, file, 0x100, 0, 8);
    const at = await map(task, fd, 8);
    await task.store(at, new Uint8Array(8 * PAGE).fill(1));
    await vm.touch(slot, 0x101);
    const pinned = file.inode.pageAt(5)!;
    kernel.pageRefs.pin(pinned);
    kernel.pageRefs.pin(file.inode.pageAt(6)!);
    const buffer = KVM_MEMORY_ATTRIBUTES2.encode({ offset: bytes(1), size: bytes(7), attributes: PRIVATE });
    await expect(task.ioctl(fd, KVM.SET_MEMORY_ATTRIBUTES2, buffer)).rejects.toMatchObject({
      errno: 'EAGAIN',
      reason: { code: 'gmem-page-referenced', data: { index: 5, pins: 1 } },
    });
    expect(KVM_MEMORY_ATTRIBUTES2.decode(buffer).error_offset).toBe(bytes(5));
    expect(file.inode.isUniform(0, 8, false)).toBe(true);
    expect(file.inode.mapping.countMapped(0, 8)).toBe(1);
    expect(vm.mapped.has(0x101)).toBe(true);
    expect(vm.invalidations).toEqual([]);
    await setAttributes(task, fd, { size: bytes(5), attributes: PRIVATE });
    kernel.pageRefs.unpin(pinned);
    kernel.pageRefs.unpin(file.inode.pageAt(6)!);
    await setAttributes(task, fd, { size: bytes(8), attributes: PRIVATE });
    expect(file.inode.isUniform(0, 8, true)).toBe(true);
    await end();
  });

  it('writes the offset to the address that user space gave', async () => {
    const { kernel, task, create, end } = await startBench(SW_PROTECTED_FILE, IN_PLACE);
    const { fd, file } = await create(2, MMAP | INIT_SHARED);
    const at = await map(task, fd, 2);
    await task.store(at, new Uint8Array(2 * PAGE));
    const argument = await task.mmap({
      lengthBytes: PAGE,
      prot: PROT.READ | PROT.WRITE,
      flags: MAP.PRIVATE | MAP.ANONYMOUS,
    });
    await task.store(argument, KVM_MEMORY_ATTRIBUTES2.encode({ size: bytes(2), attributes: PRIVATE }));
    const pinned = file.inode.pageAt(1)!;
    kernel.pageRefs.pin(pinned);
    await expect(task.ioctl(fd, KVM.SET_MEMORY_ATTRIBUTES2, argument)).rejects.toMatchObject({
      errno: 'EAGAIN',
    });
    const after = KVM_MEMORY_ATTRIBUTES2.decode(await task.load(argument, KVM_MEMORY_ATTRIBUTES2.bytes));
    expect(after.error_offset).toBe(bytes(1));
    kernel.pageRefs.unpin(pinned);
    await end();
  });

  it('takes from guests what they mapped of the other kind, and from the technology what it had', async () => {
    const { technology, calls } = recording(SNP_FILE);
    const { task, vm, create, end } = await startBench(technology, IN_PLACE);
    const { fd, file } = await create(8, MMAP);
    const slot = await vm.bind(0, file, 0x100, 0, 8);
    vm.files.advance('live');
    await vm.touch(slot, 0x101);
    await vm.touch(slot, 0x106);
    expect(calls).toEqual(['prepare 257 0', 'prepare 262 0']);
    await setAttributes(task, fd, { offset: bytes(1), size: bytes(2), attributes: 0n });
    expect(vm.invalidations).toEqual([
      { startGfn: 0x101, endGfn: 0x103, what: 'private', why: 'convert-to-shared' },
    ]);
    expect(calls.slice(2)).toEqual(['make-shared 1']);
    await vm.touch(slot, 0x101);
    expect(calls).toHaveLength(3);
    await setAttributes(task, fd, { offset: bytes(1), size: bytes(2), attributes: PRIVATE });
    expect(vm.invalidations[1]).toMatchObject({ what: 'shared', why: 'convert-to-private' });
    await setAttributes(task, fd, { offset: bytes(1), size: bytes(2), attributes: PRIVATE });
    expect(vm.invalidations).toHaveLength(2);
    await end();
  });

  it('lets no access slip in while it is under way', async () => {
    const { vm, task, create, end } = await startBench(SW_PROTECTED_FILE, IN_PLACE);
    const { fd, file } = await create(1, MMAP | INIT_SHARED);
    await vm.bind(0, file, 0x100, 0, 1);
    const at = await map(task, fd, 1);
    await task.store(at, Uint8Array.of(1));
    const reader = task.thread(1);
    const converting = convert(file.inode, 0, 1, true);
    const outcomes: Promise<string>[] = [];
    const attempt = (): void => {
      outcomes.push(
        reader.load(at, 1).then(
          () => 'read',
          () => 'SIGBUS',
        ),
      );
    };
    let converted = false;
    void converting.then(() => {
      converted = true;
    });
    for (; !converted; await Promise.resolve()) attempt();
    const before = outcomes.length;
    attempt();
    const results = await Promise.all(outcomes);
    expect(results.lastIndexOf('read')).toBeLessThan(before);
    expect(results.indexOf('SIGBUS')).toBe(results.lastIndexOf('read') + 1);
    expect(results[0]).toBe('read');
    expect(file.inode.mapping.countMapped(0, 1)).toBe(0);
    await end();
  });

  it("is off where the kernel was not told to: attributes are the VM's", async () => {
    const { task, create, end } = await startBench(SW_PROTECTED_FILE);
    const { fd } = await create(1);
    await expect(setAttributes(task, fd, { size: bytes(1), attributes: PRIVATE })).rejects.toMatchObject({
      errno: 'ENOTTY',
    });
    await end();
  });

  it('a forked child loses access too', async () => {
    const { task, create, end } = await startBench(SW_PROTECTED_FILE, IN_PLACE);
    const { fd } = await create(1, MMAP | INIT_SHARED);
    const at = await map(task, fd, 1);
    await task.store(at, Uint8Array.of(9));
    const child = await task.fork();
    expect(await child.load(at, 1)).toEqual(Uint8Array.of(9));
    await setAttributes(task, fd, { size: bytes(1), attributes: PRIVATE });
    await expect(child.load(at, 1)).rejects.toEqual(sigbus);
    await expect(task.load(at, 1)).rejects.toEqual(sigbus);
    await child.exit();
    await end();
  });
});
