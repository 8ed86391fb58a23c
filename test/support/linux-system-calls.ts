/** The system calls of the kernel that runs the tests, behind the same wall as the model's. Linux on x86-64 only. */
import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { ERRNO, type ErrnoName, KernelError } from '../../src/abi/errno.ts';
import {
  type FileStat,
  type MmapRequest,
  type PolicyReport,
  type SystemCalls,
  type UserArg,
  UserFault,
  type UserOffset,
} from '../../src/kernel/process/system-calls.ts';

/** Bytes of struct stat, and offsets in it. */
const STAT = { bytes: 144, inode: 8, links: 16, size: 48, blockSize: 56, blocks: 64 } as const;
/** System call numbers. */
const SYS = { mbind: 237, getMempolicy: 239, movePages: 279 } as const;
/** MPOL_F_ADDR: the policy of an address. */
const POLICY_OF_ADDRESS = 2;
/** Nodes that a mask names. */
const MASK_NODES = 64;

const NAMES: ReadonlyMap<number, ErrnoName> = new Map(
  Object.entries(ERRNO).map(([name, number]) => [number, name as ErrnoName]),
);

/** True where the real kernel can be called. */
export const isLinux = process.platform === 'linux' && process.arch === 'x64';

export class LinuxSystemCalls implements SystemCalls {
  readonly #libc = libc();

  async open(path: string, flags = 2): Promise<number> {
    return this.#check('open', this.#libc.open(path, flags));
  }

  async close(fd: number): Promise<void> {
    this.#check('close', this.#libc.close(fd));
  }

  dup(fd: number): number {
    return this.#check('dup', this.#libc.dup(fd));
  }

  async ioctl(fd: number, request: number, arg: UserArg = 0): Promise<number> {
    const { ioctlBuffer, ioctlValue } = this.#libc;
    const result =
      arg instanceof Uint8Array ? ioctlBuffer(fd, request, arg) : ioctlValue(fd, request, BigInt(arg));
    return this.#check('ioctl', result);
  }

  async fallocate(fd: number, mode: number, offset: UserOffset, length: UserOffset): Promise<void> {
    this.#check('fallocate', this.#libc.fallocate(fd, mode, BigInt(offset), BigInt(length)));
  }

  async ftruncate(fd: number, sizeBytes: UserOffset): Promise<void> {
    this.#check('ftruncate', this.#libc.ftruncate(fd, BigInt(sizeBytes)));
  }

  fstat(fd: number): FileStat {
    const bytes = new Uint8Array(STAT.bytes);
    this.#check('fstat', this.#libc.fstat(fd, bytes));
    const view = new DataView(bytes.buffer);
    const at = (offset: number): number => Number(view.getBigUint64(offset, true));
    return {
      inode: at(STAT.inode),
      links: at(STAT.links),
      sizeBytes: at(STAT.size),
      blockSizeBytes: at(STAT.blockSize),
      blocks: at(STAT.blocks),
    };
  }

  fdinfo(fd: number): Record<string, string> {
    const lines = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8').trim().split('\n');
    return Object.fromEntries(lines.map((line) => line.split(':\t') as [string, string]));
  }

  async read(fd: number, lengthBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(lengthBytes);
    return bytes.subarray(0, this.#check('read', this.#libc.read(fd, bytes, lengthBytes)));
  }

  async write(fd: number, bytes: Uint8Array): Promise<number> {
    return this.#check('write', this.#libc.write(fd, bytes, bytes.length));
  }

  async pread(fd: number, lengthBytes: number, offset: UserOffset): Promise<Uint8Array> {
    const bytes = new Uint8Array(lengthBytes);
    const count = this.#check('pread', this.#libc.pread(fd, bytes, lengthBytes, BigInt(offset)));
    return bytes.subarray(0, count);
  }

  async pwrite(fd: number, bytes: Uint8Array, offset: UserOffset): Promise<number> {
    return this.#check('pwrite', this.#libc.pwrite(fd, bytes, bytes.length, BigInt(offset)));
  }

  async mmap({ address = 0, lengthBytes, prot, flags, fd = -1, offset = 0 }: MmapRequest): Promise<number> {
    const { mmap } = this.#libc;
    return this.#check('mmap', mmap(BigInt(address), BigInt(lengthBytes), prot, flags, fd, BigInt(offset)));
  }

  async munmap(address: number, lengthBytes: number): Promise<void> {
    this.#check('munmap', this.#libc.munmap(BigInt(address), BigInt(lengthBytes)));
  }

  async madvise(address: number, lengthBytes: number, advice: number): Promise<void> {
    this.#check('madvise', this.#libc.madvise(BigInt(address), BigInt(lengthBytes), advice));
  }

  mbind(address: number, lengthBytes: number, mode: number, nodes: readonly number[], flags = 0): void {
    const mask = new BigUint64Array([nodes.reduce((bits, node) => bits | (1n << BigInt(node)), 0n)]);
    const { policyCall } = this.#libc;
    const result = policyCall(
      SYS.mbind,
      BigInt(address),
      BigInt(lengthBytes),
      BigInt(mode),
      mask,
      BigInt(MASK_NODES),
      BigInt(flags),
    );
    this.#check('mbind', Number(result));
  }

  getMempolicy(address: number): PolicyReport {
    const mode = new Int32Array(1);
    const mask = new BigUint64Array(1);
    const { getPolicyCall } = this.#libc;
    const nodes = BigInt(MASK_NODES);
    const result = getPolicyCall(
      SYS.getMempolicy,
      mode,
      mask,
      nodes,
      BigInt(address),
      BigInt(POLICY_OF_ADDRESS),
    );
    this.#check('get_mempolicy', Number(result));
    const all = Array.from({ length: MASK_NODES }, (_, node) => node);
    return { mode: mode[0]!, nodes: all.filter((node) => ((mask[0]! >> BigInt(node)) & 1n) === 1n) };
  }

  pageNodes(addresses: readonly number[]): readonly number[] {
    const status = new Int32Array(addresses.length);
    const pages = BigUint64Array.from(addresses, BigInt);
    const { movePages } = this.#libc;
    const result = movePages(SYS.movePages, 0n, BigInt(addresses.length), pages, 0n, status, 0n);
    this.#check('move_pages', Number(result));
    return [...status];
  }

  memfdCreate(name: string, flags = 0): number {
    return this.#check('memfd_create', this.#libc.memfdCreate(name, flags));
  }

  /** Reads its own memory by way of the kernel, so that a fault is an error and no signal. */
  async load(address: number, lengthBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(lengthBytes);
    this.#copy(this.#libc.processVmReadv, address, bytes);
    return bytes;
  }

  async store(address: number, bytes: Uint8Array): Promise<void> {
    this.#copy(this.#libc.processVmWritev, address, Uint8Array.from(bytes));
  }

  #copy(call: Libc['processVmReadv'], address: number, bytes: Uint8Array): void {
    const local = { base: bytes, length: bytes.length };
    const remote = new BigUint64Array([BigInt(address), BigInt(bytes.length)]);
    const done = Number(call(process.pid, [local], 1, remote, 1, 0));
    if (done === bytes.length) return;
    throw new UserFault('SIGBUS', address, 'the kernel could not reach the memory');
  }

  /** The result, or what errno says about a negative one. */
  #check(call: string, result: number): number {
    if (result >= 0) return Number(result);
    const number = koffi.errno();
    const name = NAMES.get(number);
    if (name === undefined) throw new Error(`${call} failed with errno ${number}, which has no name here`);
    throw new KernelError(name, 'linux', `${call} failed with ${name}`);
  }
}

type Libc = ReturnType<typeof load>;
let loaded: Libc | null = null;

/** Loaded on first use: importing this file does no harm on other systems. */
function libc(): Libc {
  loaded ??= load();
  return loaded;
}

function load() {
  const lib = koffi.load('libc.so.6');
  koffi.struct('tdxlab_iovec', { base: 'uint8_t *', length: 'size_t' });
  const fn = (prototype: string) => lib.func(prototype);
  return {
    open: fn('int open(const char *path, int flags)'),
    close: fn('int close(int fd)'),
    dup: fn('int dup(int fd)'),
    ioctlValue: fn('int ioctl(int fd, unsigned long request, int64_t arg)'),
    ioctlBuffer: fn('int ioctl(int fd, unsigned long request, void *arg)'),
    fallocate: fn('int fallocate(int fd, int mode, int64_t offset, int64_t length)'),
    ftruncate: fn('int ftruncate(int fd, int64_t length)'),
    fstat: fn('int fstat(int fd, void *stat)'),
    read: fn('int64_t read(int fd, void *bytes, size_t length)'),
    write: fn('int64_t write(int fd, const void *bytes, size_t length)'),
    pread: fn('int64_t pread(int fd, void *bytes, size_t length, int64_t offset)'),
    pwrite: fn('int64_t pwrite(int fd, const void *bytes, size_t length, int64_t offset)'),
    mmap: fn('int64_t mmap(int64_t address, uint64_t length, int prot, int flags, int fd, int64_t offset)'),
    munmap: fn('int munmap(int64_t address, uint64_t length)'),
    madvise: fn('int madvise(int64_t address, uint64_t length, int advice)'),
    memfdCreate: fn('int memfd_create(const char *name, unsigned int flags)'),
    policyCall: fn(
      'int64_t syscall(int64_t nr, int64_t a, int64_t b, int64_t c, void *d, int64_t e, int64_t f)',
    ),
    getPolicyCall: fn('int64_t syscall(int64_t nr, void *a, void *b, int64_t c, int64_t d, int64_t e)'),
    movePages: fn(
      'int64_t syscall(int64_t nr, int64_t pid, int64_t n, void *pages, int64_t nodes, void *status, int64_t flags)',
    ),
    processVmReadv: fn(
      'int64_t process_vm_readv(int pid, tdxlab_iovec *local, unsigned long n, void *remote, unsigned long m, unsigned long flags)',
    ),
    processVmWritev: fn(
      'int64_t process_vm_writev(int pid, tdxlab_iovec *local, unsigned long n, void *remote, unsigned long m, unsigned long flags)',
    ),
  };
}
