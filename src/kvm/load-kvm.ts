/** Loads KVM into a kernel that has booted: asks every technology whether the host has it, and makes /dev/kvm. */
import type { HostKernel } from '../kernel/host-kernel.ts';
import type { Technology } from './backend.ts';
import { PLAIN, SW_PROTECTED } from './backends/software/technologies.ts';
import { TdxTechnology } from './backends/tdx/technology.ts';
import { KvmDevice } from './dev-kvm.ts';
import { Kvm } from './kvm.ts';
import { DEFAULT_KVM_OPTIONS, type KvmOptions } from './kvm-options.ts';

/** Every kind of VM that KVM has code for and that `options` do not turn off. */
function technologies({ tdx }: KvmOptions): readonly Technology[] {
  return [PLAIN, SW_PROTECTED, ...(tdx === null ? [] : [new TdxTechnology(tdx)])];
}

/** Once per kernel. Throws what a technology makes loading fail with. @public */
export async function loadKvm(kernel: HostKernel, options: Partial<KvmOptions> = {}): Promise<Kvm> {
  const all = { ...DEFAULT_KVM_OPTIONS, ...options };
  const kvm = await Kvm.load(kernel, all, technologies(all));
  kernel.devices.register('/dev/kvm', () => new KvmDevice(kvm));
  return kvm;
}
