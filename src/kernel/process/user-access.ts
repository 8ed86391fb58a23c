/** Loads and stores at user addresses, page by page through the processor that the thread runs on. */
import { offsetIn, PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { CpuException, MachineCheck } from '../../machine/exceptions.ts';
import { USER_END } from './address-space.ts';
import { type UserArg, UserFault } from './system-calls.ts';
import type { Task } from './task.ts';

/** What user code loads. Throws UserFault. @internal */
export async function loadUser(task: Task, address: number, lengthBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  await forEachPage(task, address, lengthBytes, false, (physical, size) => {
    parts.push(task.lp.load(physical, size));
  });
  return parts.length === 1 ? parts[0]! : joined(parts, lengthBytes);
}

/** What user code stores. Throws UserFault; what lies before the fault is stored. @internal */
export function storeUser(task: Task, address: number, bytes: Uint8Array): Promise<void> {
  return forEachPage(task, address, bytes.length, true, (physical, size, done) => {
    task.lp.store(physical, size === bytes.length ? bytes : bytes.subarray(done, done + size));
  });
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

function joined(parts: readonly Uint8Array[], lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  let done = 0;
  for (const part of parts) {
    bytes.set(part, done);
    done += part.length;
  }
  return bytes;
}

/** Accesses user addresses by the pages they map; what the processor raises becomes a signal. */
async function forEachPage(
  task: Task,
  address: number,
  lengthBytes: number,
  write: boolean,
  access: (physical: number, size: number, done: number) => void,
): Promise<void> {
  checkRange(address, lengthBytes);
  const { memory } = task.process;
  for (let done = 0; done < lengthBytes; ) {
    const at = address + done;
    const offset = offsetIn(at, PAGE_4K);
    const vpn = (at - offset) / PAGE_4K;
    const pfn = memory.lookup(vpn, write);
    if (pfn < 0) {
      // It may be gone again once the fault is done, so the access starts over.
      await memory.faultIn(vpn, write, task);
      continue;
    }
    const size = Math.min(PAGE_4K - offset, lengthBytes - done);
    try {
      access(pfn * PAGE_4K + offset, size, done);
    } catch (error) {
      if (error instanceof MachineCheck) throw new UserFault('SIGBUS', at, error.message);
      if (error instanceof CpuException) throw new UserFault('SIGSEGV', at, error.message);
      throw error;
    }
    done += size;
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
