/** Loads KVM into a kernel that has booted: asks every technology whether the host has it, and makes /dev/kvm. */
import type { HostKernel } from '../kernel/host-kernel.ts';
import type { Technology } from './backend.ts';
import { PLAIN, SW_PROTECTED } from './backends/software/technologies.ts';
import { KvmDevice } from './dev-kvm.ts';
import { Kvm } from './kvm.ts';
import { DEFAULT_KVM_OPTIONS, type KvmOptions } from './kvm-options.ts';

const TECHNOLOGIES: readonly Technology[] = [PLAIN, SW_PROTECTED];

/** Once per kernel. Throws what a technology makes loading fail with. @public */
export async function loadKvm(kernel: HostKernel, options: Partial<KvmOptions> = {}): Promise<Kvm> {
  const kvm = await Kvm.load(kernel, { ...DEFAULT_KVM_OPTIONS, ...options }, TECHNOLOGIES);
  kernel.devices.register('/dev/kvm', () => new KvmDevice(kvm));
  return kvm;
}
