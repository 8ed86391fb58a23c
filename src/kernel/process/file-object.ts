/** What is behind a file descriptor: a driver's or a file system's side of the system calls. */
import type { MemoryArea } from './memory-area.ts';
import type { FileStat, UserArg } from './system-calls.ts';
import type { Task } from './task.ts';

/**
 * struct file_operations and the inode as far as needed. What is absent is refused as the VFS refuses it. Arguments have
 * passed the checks that the VFS makes for every file.
 * @public
 */
export interface FileObject {
  /** What it is: 'kvm', 'kvm-vm', 'kvm-vcpu', 'guest_memfd', 'memfd', 'dma'. Open files are counted by it. */
  readonly kind: string;
  /** Absent: ENOTTY. Throws ENOTTY for requests it does not know. */
  ioctl?(request: number, arg: UserArg, task: Task): Promise<number>;
  /** Absent: ENODEV. `offset` is not negative, `length` positive, and their sum fits 63 bits. */
  fallocate?(mode: number, offset: bigint, length: bigint, task: Task): Promise<void>;
  /** ftruncate. Absent: EINVAL. `sizeBytes` is not negative. */
  truncate?(sizeBytes: bigint, task: Task): Promise<void>;
  /** Sets `area.ops`, and `area.mapping` where pages may be unmapped later. Absent: ENODEV. */
  mmap?(area: MemoryArea, task: Task): void;
  /** Bytes at `position`, fewer at the end. Absent: EINVAL. */
  read?(position: bigint, lengthBytes: number, task: Task): Promise<Uint8Array>;
  /** Number of bytes written. Absent: EINVAL. */
  write?(position: bigint, bytes: Uint8Array, task: Task): Promise<number>;
  stat(): FileStat;
  /** Lines of fdinfo besides the common ones. */
  fdinfo?(): Record<string, string>;
  /** The last reference is gone. */
  release(): Promise<void>;
}
