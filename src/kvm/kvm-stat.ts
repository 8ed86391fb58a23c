/** What fstat tells of KVM's files: they have no contents and share one anonymous inode. */
import { PAGE_4K } from '../abi/address.ts';
import type { FileStat } from '../kernel/process/system-calls.ts';

/** Number of the inode that anonymous files without contents share. */
const ANON_INODE = 1;

/** @internal */
export const KVM_STAT: FileStat = {
  inode: ANON_INODE,
  sizeBytes: 0,
  blockSizeBytes: PAGE_4K,
  blocks: 0,
  links: 1,
};
