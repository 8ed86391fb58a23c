/** What user space can read about a guest_memfd. */
import { hex, PAGE_4K } from '../../abi/address.ts';
import type { GuestMemfdFile } from './file.ts';

/** Lines of fdinfo, named and ordered as printed. @internal */
export function describeFile({ inode, slots, tracksPrivate }: GuestMemfdFile): Record<string, string> {
  const { life, pages, flags, technology } = inode;
  return {
    size: String(pages * PAGE_4K),
    'gmem-flags': hex(flags),
    'gmem-technology': technology.name,
    'gmem-state': life.state,
    'gmem-permitted': life.permitted.join(' '),
    'gmem-allocated-pages': String(inode.allocatedPages),
    'gmem-mapped-pages': String(inode.mapping.countMapped(0, pages)),
    'gmem-bindings': String(slots.length),
    'gmem-files': String(inode.files.size),
    'gmem-initially': inode.isInitShared ? 'shared' : 'private',
    'gmem-converted-ranges': tracksPrivate ? String(inode.convertedRanges) : 'none',
  };
}
