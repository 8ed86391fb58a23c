/** System calls with a line for each, as strace prints them, errnos with their reasons. */
import { hex } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { KVM_RUN_COMMON, KVM_RUN_EXIT_BYTES, KVM_RUN_EXIT_OFFSET } from '../../abi/kvm/exits.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import { KVM_VM_TYPE } from '../../abi/kvm/vm-types.ts';
import { FALLOC_FL, MADV, MAP, MFD, MPOL, O, PROT } from '../../abi/system-call-flags.ts';
import type {
  FileStat,
  MmapRequest,
  PolicyReport,
  SystemCalls,
  UserArg,
  UserOffset,
} from '../../kernel/process/system-calls.ts';
import { pointerIn } from './describe-command.ts';
import { describeExit } from './describe-exit.ts';
import { describeArgument, requestName } from './describe-ioctl.ts';
import { flagNames, nameOf } from './flag-names.ts';

/** Descriptors that an ioctl makes, by request. */
const MADE: ReadonlyMap<number, (arg: UserArg) => string> = new Map<number, (arg: UserArg) => string>([
  [KVM.CREATE_VM, () => 'vm'],
  [KVM.CREATE_VCPU, (arg) => `vcpu:${arg}`],
  [KVM.CREATE_GUEST_MEMFD, () => 'guest_memfd'],
]);

/** What the trace knows of a process: names of descriptors, run pages by descriptor, whose commands VMs take. */
interface TracedProcess {
  readonly names: Map<number, string>;
  readonly runPages: Map<number, number>;
  technology: 'tdx' | 'sev';
}

/** The kernel's calls, each told to `line` once it has ended; loads and stores only where they end in a signal. @public */
export class TracedSystemCalls implements SystemCalls {
  readonly #calls: SystemCalls;
  readonly #line: (text: string) => void;
  readonly #process: TracedProcess;

  /** `of` is another thread of the same process, whose descriptors are known by the same names. */
  constructor(calls: SystemCalls, line: (text: string) => void, of: TracedSystemCalls | null = null) {
    this.#calls = calls;
    this.#line = line;
    this.#process = of === null ? { names: new Map(), runPages: new Map(), technology: 'tdx' } : of.#process;
  }

  async open(path: string, flags: number = O.RDONLY): Promise<number> {
    const mode = flags & O.ACCMODE;
    const access = nameOf('O_', { RDONLY: O.RDONLY, WRONLY: O.WRONLY, RDWR: O.RDWR }, mode);
    const more = flags === mode ? '' : `|${flagNames('O_', { CLOEXEC: O.CLOEXEC }, flags - mode)}`;
    const fd = await this.#traced(
      `open("${path}", ${access}${more})`,
      () => this.#calls.open(path, flags),
      String,
    );
    this.#process.names.set(fd, path);
    return fd;
  }

  async close(fd: number): Promise<void> {
    await this.#traced(`close(${this.#fd(fd)})`, () => this.#calls.close(fd));
    this.#process.names.delete(fd);
    this.#process.runPages.delete(fd);
  }

  dup(fd: number): number {
    const copy = this.#now(`dup(${this.#fd(fd)})`, () => this.#calls.dup(fd), String);
    this.#process.names.set(copy, this.#process.names.get(fd) ?? 'file');
    return copy;
  }

  async ioctl(fd: number, request: number, arg?: UserArg): Promise<number> {
    if (request === KVM.CREATE_VM) this.#process.technology = arg === KVM_VM_TYPE.TDX ? 'tdx' : 'sev';
    const head = `ioctl(${this.#fd(fd)}, ${requestName(request)}`;
    if (request === KVM.RUN) return this.#run(fd, `${head})`);
    const { technology } = this.#process;
    const pointer = pointerIn(request, arg, technology);
    // Loaded before the call, which may change it; a program's own buffer is described once the call has ended.
    const behind = pointer?.describe(await this.#calls.load(pointer.address, pointer.lengthBytes));
    const call = (): string => {
      const shown = describeArgument(request, arg, technology, behind);
      return `${head}${shown === '' ? '' : `, ${shown}`})`;
    };
    const result = await this.#traced(call, () => this.#calls.ioctl(fd, request, arg), String);
    const made = MADE.get(request);
    if (made !== undefined) this.#process.names.set(result, made(arg ?? 0));
    return result;
  }

  fallocate(fd: number, mode: number, offset: UserOffset, length: UserOffset): Promise<void> {
    const call = `fallocate(${this.#fd(fd)}, ${flagNames('FALLOC_FL_', FALLOC_FL, mode)}, ${hex(offset)}, ${hex(length)})`;
    return this.#traced(call, () => this.#calls.fallocate(fd, mode, offset, length));
  }

  ftruncate(fd: number, sizeBytes: UserOffset): Promise<void> {
    return this.#traced(`ftruncate(${this.#fd(fd)}, ${hex(sizeBytes)})`, () =>
      this.#calls.ftruncate(fd, sizeBytes),
    );
  }

  fstat(fd: number): FileStat {
    const shown = ({ sizeBytes, blocks }: FileStat): string =>
      `0 {st_size=${hex(sizeBytes)}, st_blocks=${blocks}}`;
    return this.#now(`fstat(${this.#fd(fd)})`, () => this.#calls.fstat(fd), shown);
  }

  fdinfo(fd: number): Record<string, string> {
    return this.#calls.fdinfo(fd);
  }

  read(fd: number, lengthBytes: number): Promise<Uint8Array> {
    const call = `read(${this.#fd(fd)}, ${lengthBytes})`;
    return this.#traced(call, () => this.#calls.read(fd, lengthBytes), lengthOf);
  }

  write(fd: number, bytes: Uint8Array): Promise<number> {
    return this.#traced(
      `write(${this.#fd(fd)}, ${bytes.length})`,
      () => this.#calls.write(fd, bytes),
      String,
    );
  }

  pread(fd: number, lengthBytes: number, offset: UserOffset): Promise<Uint8Array> {
    const call = `pread64(${this.#fd(fd)}, ${lengthBytes}, ${hex(offset)})`;
    return this.#traced(call, () => this.#calls.pread(fd, lengthBytes, offset), lengthOf);
  }

  pwrite(fd: number, bytes: Uint8Array, offset: UserOffset): Promise<number> {
    const call = `pwrite64(${this.#fd(fd)}, ${bytes.length}, ${hex(offset)})`;
    return this.#traced(call, () => this.#calls.pwrite(fd, bytes, offset), String);
  }

  async mmap(request: MmapRequest): Promise<number> {
    const { address = 0, lengthBytes, prot, flags, fd, offset = 0 } = request;
    const type = flags & MAP.TYPE;
    const { SHARED, PRIVATE, SHARED_VALIDATE, TYPE, ...more } = MAP;
    const kind = nameOf('MAP_', { SHARED, PRIVATE, SHARED_VALIDATE }, type);
    const rest = flags === type ? '' : `|${flagNames('MAP_', more, flags - type)}`;
    const file = fd === undefined ? '-1' : this.#fd(fd);
    const where = address === 0 ? 'NULL' : hex(address);
    const call = `mmap(${where}, ${hex(lengthBytes)}, ${flagNames('PROT_', PROT, prot)}, ${kind}${rest}, ${file}, ${hex(offset)})`;
    const result = await this.#traced(call, () => this.#calls.mmap(request), hex);
    if (fd !== undefined && this.#process.names.get(fd)?.startsWith('vcpu') === true)
      this.#process.runPages.set(fd, result);
    return result;
  }

  munmap(address: number, lengthBytes: number): Promise<void> {
    return this.#traced(`munmap(${hex(address)}, ${hex(lengthBytes)})`, () =>
      this.#calls.munmap(address, lengthBytes),
    );
  }

  madvise(address: number, lengthBytes: number, advice: number): Promise<void> {
    const call = `madvise(${hex(address)}, ${hex(lengthBytes)}, ${nameOf('MADV_', MADV, advice)})`;
    return this.#traced(call, () => this.#calls.madvise(address, lengthBytes, advice));
  }

  mbind(address: number, lengthBytes: number, mode: number, nodes: readonly number[], flags?: number): void {
    const call = `mbind(${hex(address)}, ${hex(lengthBytes)}, ${nameOf('MPOL_', MPOL, mode)}, [${nodes.join(', ')}])`;
    this.#now(call, () => this.#calls.mbind(address, lengthBytes, mode, nodes, flags));
  }

  getMempolicy(address: number): PolicyReport {
    const shown = ({ mode, nodes }: PolicyReport): string =>
      `${nameOf('MPOL_', MPOL, mode)} [${nodes.join(', ')}]`;
    return this.#now(`get_mempolicy(${hex(address)})`, () => this.#calls.getMempolicy(address), shown);
  }

  pageNodes(addresses: readonly number[]): readonly number[] {
    const shown = (nodes: readonly number[]): string => `0 [${nodes.join(', ')}]`;
    return this.#now(`move_pages(${addresses.length} pages)`, () => this.#calls.pageNodes(addresses), shown);
  }

  memfdCreate(name: string, flags = 0): number {
    const call = `memfd_create("${name}", ${flagNames('MFD_', MFD, flags)})`;
    const fd = this.#now(call, () => this.#calls.memfdCreate(name, flags), String);
    this.#process.names.set(fd, `memfd:${name}`);
    return fd;
  }

  load(address: number, lengthBytes: number): Promise<Uint8Array> {
    return this.#signals(() => this.#calls.load(address, lengthBytes));
  }

  store(address: number, bytes: Uint8Array): Promise<void> {
    return this.#signals(() => this.#calls.store(address, bytes));
  }

  #fd(fd: number): string {
    const name = this.#process.names.get(fd);
    return name === undefined ? String(fd) : `${fd}<${name}>`;
  }

  /** KVM_RUN tells its exit in the run page, even where it fails. */
  async #run(fd: number, call: string): Promise<number> {
    try {
      const result = await this.#calls.ioctl(fd, KVM.RUN);
      this.#line(`${call} = ${result} ${await this.#exitOf(fd)}`);
      return result;
    } catch (error) {
      this.#line(`${call} = ${failure(error)} ${await this.#exitOf(fd)}`);
      throw error;
    }
  }

  async #exitOf(fd: number): Promise<string> {
    const page = this.#process.runPages.get(fd);
    if (page === undefined) return '';
    const bytes = await this.#calls.load(page, KVM_RUN_EXIT_OFFSET + KVM_RUN_EXIT_BYTES);
    return describeExit(KVM_RUN_COMMON.decode(bytes).exit_reason, bytes.slice(KVM_RUN_EXIT_OFFSET));
  }

  async #traced<T>(
    call: string | (() => string),
    work: () => Promise<T>,
    shown: (result: T) => string = () => '0',
  ): Promise<T> {
    const text = (): string => (typeof call === 'string' ? call : call());
    try {
      const result = await work();
      this.#line(`${text()} = ${shown(result)}`);
      return result;
    } catch (error) {
      this.#line(`${text()} = ${failure(error)}`);
      throw error;
    }
  }

  #now<T>(call: string, work: () => T, shown: (result: T) => string = () => '0'): T {
    try {
      const result = work();
      this.#line(`${call} = ${shown(result)}`);
      return result;
    } catch (error) {
      this.#line(`${call} = ${failure(error)}`);
      throw error;
    }
  }

  async #signals<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      this.#line(`--- ${(error as Error).message} ---`);
      throw error;
    }
  }
}

function lengthOf(bytes: Uint8Array): string {
  return String(bytes.length);
}

/** `-1 ENOSPC (every KeyID is in use)`. */
function failure(error: unknown): string {
  return error instanceof KernelError
    ? `-1 ${error.errno} (${error.reason.text})`
    : `-1 (${(error as Error).message})`;
}
