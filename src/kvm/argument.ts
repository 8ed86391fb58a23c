/** Arguments of ioctls that are values. */
import { KernelError } from '../abi/errno.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';

/** The value as an unsigned long. A buffer is where a C program would pass an address. @internal */
export function argumentValue(arg: UserArg): number {
  if (arg instanceof Uint8Array) {
    throw new KernelError('EINVAL', 'ioctl-argument', 'the ioctl takes a value, no buffer');
  }
  return typeof arg === 'number' && arg >= 0 ? arg : Number(BigInt.asUintN(64, BigInt(arg)));
}

/** Throws EINVAL for an argument other than 0, where an ioctl takes none. @internal */
export function expectNone(arg: UserArg): void {
  if (argumentValue(arg) !== 0) {
    throw new KernelError('EINVAL', 'ioctl-argument', 'the ioctl takes no argument', { argument: arg });
  }
}
