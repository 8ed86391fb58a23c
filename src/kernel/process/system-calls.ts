/** The wall between user space and the kernel: what a thread of a process may do. */

/** A value or an address of the process, or a buffer that the caller holds, which the kernel reads and writes. @public */
export type UserArg = number | bigint | Uint8Array;

/** Offsets and lengths: exact as bigint up to 64 bits. @public */
export type UserOffset = number | bigint;

/** What fstat tells. @public */
export interface FileStat {
  readonly inode: number;
  readonly sizeBytes: number;
  /** Preferred unit of I/O in bytes. */
  readonly blockSizeBytes: number;
  /** Allocated units of 512 bytes. */
  readonly blocks: number;
  readonly links: number;
}

/** The operands of mmap; `prot` is made of PROT, `flags` of MAP, `offset` is in bytes. @public */
export interface MmapRequest {
  readonly address?: number;
  readonly lengthBytes: number;
  readonly prot: number;
  readonly flags: number;
  readonly fd?: number;
  readonly offset?: UserOffset;
}

/** A memory policy as get_mempolicy reports it: `mode` of MPOL, nodes ascending. @public */
export interface PolicyReport {
  readonly mode: number;
  readonly nodes: readonly number[];
}

/** The signal that a load or store by user code ended in. @public */
export class UserFault extends Error {
  readonly signal: 'SIGSEGV' | 'SIGBUS';
  /** Virtual address of the access. */
  readonly address: number;
  readonly reason: string;
  constructor(signal: 'SIGSEGV' | 'SIGBUS', address: number, reason: string) {
    super(`${signal} at 0x${address.toString(16)}: ${reason}`);
    this.name = 'UserFault';
    this.signal = signal;
    this.address = address;
    this.reason = reason;
  }
}

/** System calls and the accesses of user code. A refused call throws KernelError: errno and reason. @public */
export interface SystemCalls {
  /** Opens a device. ENOENT where no driver has the path. */
  open(path: string, flags?: number): Promise<number>;
  close(fd: number): Promise<void>;
  /** A new descriptor of the same open file. */
  dup(fd: number): number;
  /** EBADF, ENOTTY for a request the file does not know, and what the file says. */
  ioctl(fd: number, request: number, arg?: UserArg): Promise<number>;
  fallocate(fd: number, mode: number, offset: UserOffset, length: UserOffset): Promise<void>;
  ftruncate(fd: number, sizeBytes: UserOffset): Promise<void>;
  fstat(fd: number): FileStat;
  /** The lines of /proc/self/fdinfo. */
  fdinfo(fd: number): Record<string, string>;
  /** At the file's own position. */
  read(fd: number, lengthBytes: number): Promise<Uint8Array>;
  write(fd: number, bytes: Uint8Array): Promise<number>;
  pread(fd: number, lengthBytes: number, offset: UserOffset): Promise<Uint8Array>;
  pwrite(fd: number, bytes: Uint8Array, offset: UserOffset): Promise<number>;
  /** Address of the new mapping. */
  mmap(request: MmapRequest): Promise<number>;
  munmap(address: number, lengthBytes: number): Promise<void>;
  madvise(address: number, lengthBytes: number, advice: number): Promise<void>;
  /** `mode` of MPOL, `flags` of MPOL_MF. */
  mbind(address: number, lengthBytes: number, mode: number, nodes: readonly number[], flags?: number): void;
  getMempolicy(address: number): PolicyReport;
  /** move_pages without target: the node of the page at each address, or -EFAULT where no page is mapped. */
  pageNodes(addresses: readonly number[]): readonly number[];
  memfdCreate(name: string, flags?: number): number;
  /** A load by user code. Throws UserFault. */
  load(address: number, lengthBytes: number): Promise<Uint8Array>;
  /** A store by user code. Throws UserFault; what lies before the fault is stored. */
  store(address: number, bytes: Uint8Array): Promise<void>;
}
