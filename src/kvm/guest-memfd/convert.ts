/** Conversion in place: pages of a file become private or shared, where they are. */
import { hex, PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { KVM_MEMORY_ATTRIBUTE_PRIVATE, KVM_MEMORY_ATTRIBUTES2 } from '../../abi/kvm/structs.ts';
import type { UserArg } from '../../kernel/process/system-calls.ts';
import type { Task } from '../../kernel/process/task.ts';
import type { GuestMemfdInode } from './inode.ts';

/** KVM_SET_MEMORY_ATTRIBUTES2 on a file: checks in the order of the series' last revision. @internal */
export async function setMemoryAttributes2(
  inode: GuestMemfdInode,
  arg: UserArg,
  task: Task,
): Promise<number> {
  const buffer = await task.copyIn(arg, KVM_MEMORY_ATTRIBUTES2.bytes);
  const { offset, size, attributes, flags, reserved } = KVM_MEMORY_ATTRIBUTES2.decode(buffer);
  const sizeBytes = BigInt(inode.pages) * BigInt(PAGE_4K);
  const refuse = (code: string, text: string): never => {
    throw new KernelError('EINVAL', code, text, { offset, size, attributes, flags, sizeBytes });
  };
  if (flags !== 0n) refuse('gmem-attributes-flags', `no flag is defined, ${hex(flags)} were given`);
  if (reserved.some((word) => word !== 0n)) refuse('gmem-attributes-reserved', 'a reserved word is not zero');
  const { name, hasPrivateMemory, supportsInPlace } = inode.technology;
  if (!hasPrivateMemory || !supportsInPlace)
    refuse('gmem-no-private', `${name} has no private memory in place`);
  if ((attributes & ~KVM_MEMORY_ATTRIBUTE_PRIVATE) !== 0n) {
    refuse('gmem-attributes-unknown', `only PRIVATE (${hex(KVM_MEMORY_ATTRIBUTE_PRIVATE)}) is an attribute`);
  }
  if (size === 0n || offset + size >= 2n ** 64n)
    refuse('gmem-attributes-range', 'the range is empty or wraps');
  if (offset % BigInt(PAGE_4K) !== 0n || size % BigInt(PAGE_4K) !== 0n) {
    refuse('gmem-attributes-unaligned', 'offset and size must be multiples of 4 KiB');
  }
  if (offset + size > sizeBytes)
    refuse('gmem-attributes-beyond', 'the range reaches beyond the end of the file');
  const start = Number(offset) / PAGE_4K;
  const end = Number(offset + size) / PAGE_4K;
  try {
    await convert(inode, start, end, (attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE) !== 0n);
    return 0;
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    const index = (error.reason.data.index as number | undefined) ?? start;
    KVM_MEMORY_ATTRIBUTES2.patch(buffer, { error_offset: BigInt(index) * BigInt(PAGE_4K) });
    await task.copyOut(arg, buffer);
    throw error;
  }
}

/**
 * Makes pages [start, end) private or shared. All of them or, where it throws, none: EAGAIN for the first page that
 * somebody besides the file holds a reference to, such as a device (`data.index`); user space has lost its mappings of
 * the whole range by then and faults them in again. What guests mapped of the other kind is gone afterwards.
 * @internal
 */
export async function convert(
  inode: GuestMemfdInode,
  start: number,
  end: number,
  isPrivate: boolean,
): Promise<void> {
  const why = isPrivate ? 'convert-to-private' : 'convert-to-shared';
  await inode.invalidateLock.write(async () => {
    if (inode.isUniform(start, end, isPrivate)) return;
    inode.life.check(why);
    if (isPrivate) {
      await inode.mapping.unmap(start, end);
      if (inode.kernel.schedule !== null) await inode.kernel.schedule('gmem-convert');
      checkUnreferenced(inode, start, end);
    }
    await inode.invalidating(start, end, isPrivate ? 'shared' : 'private', why, async () => {
      if (!isPrivate) {
        for (const { pfn, pages } of inode.runs(start, end)) await inode.technology.makeShared?.(pfn, pages);
        if (inode.kernel.schedule !== null) await inode.kernel.schedule('gmem-made-shared');
      }
      inode.setPrivate(start, end, isPrivate);
    });
  });
}

function checkUnreferenced(inode: GuestMemfdInode, start: number, end: number): void {
  const { pageRefs } = inode.kernel;
  for (const { index, pfn, pages } of inode.runs(start, end)) {
    for (let i = 0; i < pages; i++) {
      const references = pageRefs.count(pfn + i);
      if (references <= 1) continue;
      throw new KernelError(
        'EAGAIN',
        'gmem-page-referenced',
        `page ${index + i} of the guest_memfd is still in use outside it, by a device or by the kernel`,
        { index: index + i, pfn: pfn + i, references: references - 1, pins: pageRefs.pins(pfn + i) },
      );
    }
  }
}
