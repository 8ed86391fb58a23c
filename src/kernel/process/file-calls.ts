/** The system calls on descriptors, with the checks that the VFS makes for every file, in its order. */
import { KernelError } from '../../abi/errno.ts';
import { FALLOC_FL, O } from '../../abi/system-call-flags.ts';
import { deviceAt } from './device-path.ts';
import type { OpenFile } from './open-file.ts';
import type { UserArg, UserOffset } from './system-calls.ts';
import type { Task } from './task.ts';
import { signedOffset, userNumber } from './user-access.ts';

/** Largest offset in a file (loff_t). */
const MAX_OFFSET = 2n ** 63n - 1n;
/** Most bytes that one read or write moves: INT_MAX rounded down to a page. */
const MAX_RW = 0x7fff_f000;

/** @internal */
export async function open(task: Task, path: string, flags: number = O.RDWR): Promise<number> {
  const device = deviceAt(task.kernel.devices, path);
  task.process.files.reserve();
  return task.installFile(await device(task), { flags: flags | O.LARGEFILE, seekable: true });
}

/** @internal */
export async function close(task: Task, fd: number): Promise<void> {
  await task.process.files.remove(fd).put();
}

/** @internal */
export function dup(task: Task, fd: number): number {
  const { files } = task.process;
  const file = files.get(fd);
  files.reserve();
  return files.install(file.get());
}

/** @internal */
export function ioctl(task: Task, fd: number, request: number, arg: UserArg): Promise<number> {
  return using(task, fd, ({ object }) => {
    const number = request >>> 0;
    if (object.ioctl === undefined) throw unknownRequest(object.kind, number);
    return object.ioctl(number, arg, task);
  });
}

/** What a file throws for a request that it does not know. @public */
export function unknownRequest(kind: string, request: number): KernelError {
  const name = `0x${request.toString(16)}`;
  return new KernelError(
    'ENOTTY',
    'ioctl-unknown',
    `a file of kind ${kind} does not know the request ${name}`,
    {
      kind,
      request,
    },
  );
}

/** Modes of fallocate that exist, each apart from KEEP_SIZE. */
const FALLOCATE_MODES: ReadonlySet<number> = new Set([
  0,
  FALLOC_FL.PUNCH_HOLE,
  FALLOC_FL.COLLAPSE_RANGE,
  FALLOC_FL.ZERO_RANGE,
  FALLOC_FL.INSERT_RANGE,
  FALLOC_FL.UNSHARE_RANGE,
  FALLOC_FL.WRITE_ZEROES,
]);
/** Modes that may change the size of the file, and so cannot be told to keep it. */
const RESIZING = FALLOC_FL.COLLAPSE_RANGE | FALLOC_FL.INSERT_RANGE | FALLOC_FL.WRITE_ZEROES;

/** @internal */
export function fallocate(
  task: Task,
  fd: number,
  mode: number,
  offset: UserOffset,
  length: UserOffset,
): Promise<void> {
  return using(task, fd, async (file) => {
    const [from, bytes] = [signedOffset(offset), signedOffset(length)];
    if (from < 0n || bytes <= 0n) {
      throw invalid('fallocate-range', 'the offset must not be negative and the length must be positive', {
        offset: from,
        length: bytes,
      });
    }
    const keepsSize = (mode & FALLOC_FL.KEEP_SIZE) !== 0;
    const operation = mode & ~FALLOC_FL.KEEP_SIZE;
    const wrongSize =
      (operation === FALLOC_FL.PUNCH_HOLE && !keepsSize) || ((operation & RESIZING) !== 0 && keepsSize);
    if (!FALLOCATE_MODES.has(operation) || wrongSize) {
      throw new KernelError(
        'EOPNOTSUPP',
        'fallocate-mode',
        `fallocate does not know the mode 0x${(mode >>> 0).toString(16)}`,
        {
          mode,
        },
      );
    }
    if (!isWritable(file)) throw notOpenFor(fd, 'writing');
    const { object } = file;
    if (object.fallocate === undefined) {
      throw new KernelError('ENODEV', 'not-a-regular-file', `a file of kind ${object.kind} has no blocks`);
    }
    if (from + bytes > MAX_OFFSET) {
      throw new KernelError('EFBIG', 'offset-too-big', 'the range ends beyond the largest file offset', {
        offset: from,
        length: bytes,
      });
    }
    await object.fallocate(mode, from, bytes, task);
  });
}

/** @internal */
export function ftruncate(task: Task, fd: number, sizeBytes: UserOffset): Promise<void> {
  const size = signedOffset(sizeBytes);
  if (size < 0n) throw invalid('negative-size', 'a file cannot have a negative size', { size });
  return using(task, fd, async (file) => {
    const { object } = file;
    if (object.truncate === undefined || !isWritable(file)) {
      throw invalid('no-truncate', `the size of a file of kind ${object.kind} cannot change`, { size });
    }
    await object.truncate(size, task);
  });
}

/** @internal */
export function fdinfo(task: Task, fd: number): Record<string, string> {
  const { object, position, flags } = task.process.files.get(fd);
  const common = { pos: `${position}`, flags: `0${flags.toString(8)}`, ino: `${object.stat().inode}` };
  return { ...common, ...object.fdinfo?.() };
}

/** @internal */
export function read(task: Task, fd: number, lengthBytes: number): Promise<Uint8Array> {
  return using(task, fd, async (file) => {
    const bytes = await readAt(task, fd, file, file.position, lengthBytes);
    file.position += BigInt(bytes.length);
    return bytes;
  });
}

/** @internal */
export function write(task: Task, fd: number, bytes: Uint8Array): Promise<number> {
  return using(task, fd, async (file) => {
    const written = await writeAt(task, fd, file, file.position, bytes);
    file.position += BigInt(written);
    return written;
  });
}

/** @internal */
export function pread(task: Task, fd: number, lengthBytes: number, offset: UserOffset): Promise<Uint8Array> {
  const position = checkPosition(offset);
  return using(task, fd, (file) => {
    checkSeekable(file);
    return readAt(task, fd, file, position, lengthBytes);
  });
}

/** @internal */
export function pwrite(task: Task, fd: number, bytes: Uint8Array, offset: UserOffset): Promise<number> {
  const position = checkPosition(offset);
  return using(task, fd, (file) => {
    checkSeekable(file);
    return writeAt(task, fd, file, position, bytes);
  });
}

async function readAt(
  task: Task,
  fd: number,
  file: OpenFile,
  position: bigint,
  lengthBytes: number,
): Promise<Uint8Array> {
  const { object, flags } = file;
  if ((flags & O.ACCMODE) === O.WRONLY) throw notOpenFor(fd, 'reading');
  if (object.read === undefined) throw noTransfer(object.kind, 'read');
  const length = checkTransfer(position, userNumber(lengthBytes));
  return object.read(position, length, task);
}

async function writeAt(
  task: Task,
  fd: number,
  file: OpenFile,
  position: bigint,
  bytes: Uint8Array,
): Promise<number> {
  const { object } = file;
  if (!isWritable(file)) throw notOpenFor(fd, 'writing');
  if (object.write === undefined) throw noTransfer(object.kind, 'written');
  return object.write(position, bytes.subarray(0, checkTransfer(position, bytes.length)), task);
}

/** Does `work` with the file, which stays open meanwhile even where another thread closes the descriptor. */
async function using<T>(task: Task, fd: number, work: (file: OpenFile) => Promise<T>): Promise<T> {
  const file = task.process.files.get(fd).get();
  try {
    return await work(file);
  } finally {
    await file.put();
  }
}

function isWritable({ flags }: OpenFile): boolean {
  return (flags & O.ACCMODE) !== O.RDONLY;
}

function checkPosition(offset: UserOffset): bigint {
  const position = signedOffset(offset);
  if (position < 0n)
    throw invalid('negative-offset', 'an offset in a file is not negative', { offset: position });
  return position;
}

function checkSeekable({ object, seekable }: OpenFile): void {
  if (seekable) return;
  throw new KernelError('ESPIPE', 'not-seekable', `a file of kind ${object.kind} has no positions`);
}

function checkTransfer(position: bigint, length: number): number {
  // access_ok comes first in the kernel; a range of addresses that long cannot be a buffer.
  if (length > Number.MAX_SAFE_INTEGER)
    throw invalid('length-too-long', 'a length is below 2^63', { length });
  if (position + BigInt(length) > MAX_OFFSET) {
    throw invalid('offset-too-big', 'the range ends beyond the largest file offset', {
      offset: position,
      length,
    });
  }
  return Math.min(length, MAX_RW);
}

function notOpenFor(fd: number, what: string): KernelError {
  return new KernelError('EBADF', 'access-mode', `descriptor ${fd} is not open for ${what}`, { fd });
}

function noTransfer(kind: string, what: string): KernelError {
  return invalid('no-transfer', `a file of kind ${kind} cannot be ${what}`, { kind });
}

function invalid(code: string, text: string, data: Record<string, unknown>): KernelError {
  return new KernelError('EINVAL', code, text, data);
}
