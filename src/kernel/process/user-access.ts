/** Loads and stores at user addresses, page by page through the processor that the thread runs on. */
import { offsetIn, PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { CpuException, MachineCheck } from '../../machine/exceptions.ts';
import { USER_END } from './address-space.ts';
import { type UserArg, UserFault } from './system-calls.ts';
import type { Task } from './task.ts';

/** What user code loads. Throws UserFault. @internal */
export async function loadUser(task: Task, address: number, lengthBytes: number): Promise<Uint8Array> {
  checkRange(address, lengthBytes);
  const offset = offsetIn(address, PAGE_4K);
  if (offset + lengthBytes <= PAGE_4K && lengthBytes > 0) return loadPage(task, address, lengthBytes);
  const bytes = new Uint8Array(lengthBytes);
  for (let done = 0; done < lengthBytes; ) {
    const at = address + done;
    const size = Math.min(PAGE_4K - offsetIn(at, PAGE_4K), lengthBytes - done);
    bytes.set(await loadPage(task, at, size), done);
    done += size;
  }
  return bytes;
}

/** What user code stores. Throws UserFault. @internal */
export async function storeUser(task: Task, address: number, bytes: Uint8Array): Promise<void> {
  checkRange(address, bytes.length);
  for (let done = 0; done < bytes.length; ) {
    const at = address + done;
    const offset = offsetIn(at, PAGE_4K);
    const size = Math.min(PAGE_4K - offset, bytes.length - done);
    const vpn = Math.floor(at / PAGE_4K);
    const { memory } = task.process;
    let pfn = memory.lookup(vpn, true);
    if (pfn < 0) pfn = await memory.faultIn(vpn, true, task);
    const part = size === bytes.length ? bytes : bytes.subarray(done, done + size);
    access(at, () => task.lp.store(pfn * PAGE_4K + offset, part));
    done += size;
  }
}

/** copy_from_user: `lengthBytes` bytes at `offset` of the argument. Throws EFAULT. @internal */
export async function copyIn(
  task: Task,
  arg: UserArg,
  lengthBytes: number,
  offset: number,
): Promise<Uint8Array> {
  if (arg instanceof Uint8Array) return arg.slice(offset, checkBuffer(arg, offset + lengthBytes));
  return refusingFaults(() => loadUser(task, userNumber(arg) + offset, lengthBytes));
}

/** copy_to_user at `offset` of the argument. Throws EFAULT. @internal */
export async function copyOut(task: Task, arg: UserArg, bytes: Uint8Array, offset: number): Promise<void> {
  if (arg instanceof Uint8Array) {
    checkBuffer(arg, offset + bytes.length);
    arg.set(bytes, offset);
    return;
  }
  await refusingFaults(() => storeUser(task, userNumber(arg) + offset, bytes));
}

/**
 * A user address or length as a number: 64 bits, as a register holds them. Above 2^53 it is rounded, which is far beyond
 * every user address.
 * @internal
 */
export function userNumber(value: number | bigint): number {
  if (typeof value === 'number' && value >= 0 && value <= Number.MAX_SAFE_INTEGER) return Math.trunc(value);
  return Number(BigInt.asUintN(64, wholeOf(value)));
}

/** A file offset or length: signed, 64 bits. @internal */
export function signedOffset(value: number | bigint): bigint {
  return BigInt.asIntN(64, wholeOf(value));
}

function wholeOf(value: number | bigint): bigint {
  if (typeof value === 'bigint') return value;
  return Number.isFinite(value) ? BigInt(Math.trunc(value)) : 0n;
}

async function loadPage(task: Task, address: number, size: number): Promise<Uint8Array> {
  const vpn = Math.floor(address / PAGE_4K);
  const { memory } = task.process;
  let pfn = memory.lookup(vpn, false);
  if (pfn < 0) pfn = await memory.faultIn(vpn, false, task);
  return access(address, () => task.lp.load(pfn * PAGE_4K + offsetIn(address, PAGE_4K), size));
}

/** Executes one instruction of user code; what the processor raises becomes a signal. */
function access<T>(address: number, instruction: () => T): T {
  try {
    return instruction();
  } catch (error) {
    if (error instanceof MachineCheck) throw new UserFault('SIGBUS', address, error.message);
    if (error instanceof CpuException) throw new UserFault('SIGSEGV', address, error.message);
    throw error;
  }
}

function checkRange(address: number, lengthBytes: number): void {
  if (address >= 0 && address + lengthBytes <= USER_END && Number.isSafeInteger(address)) return;
  throw new UserFault('SIGSEGV', address, 'no user address');
}

function checkBuffer(buffer: Uint8Array, end: number): number {
  if (end <= buffer.length) return end;
  throw new KernelError(
    'EFAULT',
    'buffer-too-short',
    `the buffer has ${buffer.length} bytes, and the call needs ${end}`,
    { bytes: buffer.length, needed: end },
  );
}

async function refusingFaults<T>(copy: () => Promise<T>): Promise<T> {
  try {
    return await copy();
  } catch (error) {
    if (!(error instanceof UserFault)) throw error;
    const { address, signal, reason } = error;
    throw new KernelError('EFAULT', 'bad-address', `the kernel cannot reach the user address: ${reason}`, {
      address,
      signal,
    });
  }
}
