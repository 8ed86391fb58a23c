/** /dev/kvm, opened. */
import { KernelError } from '../../abi/errno.ts';
import { KVM_API_VERSION } from '../../abi/kvm/capabilities.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import { O } from '../../abi/system-call-flags.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';
import { doing } from './doing.ts';

/** Descriptor of /dev/kvm. Throws what open throws, ENODEV for an API that is not the one there has been since 2007. @public */
export async function openKvm(calls: SystemCalls): Promise<number> {
  const fd = await doing('opening /dev/kvm', () => calls.open('/dev/kvm', O.RDWR | O.CLOEXEC));
  const version = await calls.ioctl(fd, KVM.GET_API_VERSION);
  if (version === KVM_API_VERSION) return fd;
  await calls.close(fd);
  throw new KernelError('ENODEV', 'kvm-api', `KVM has API version ${version} instead of ${KVM_API_VERSION}`);
}
