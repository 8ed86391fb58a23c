/** Loads KVM into a kernel that has booted: asks every technology whether the host has it, and makes /dev/kvm. */
import type { HostKernel } from '../kernel/host-kernel.ts';
import type { Technology } from './backend.ts';
import { PKVM, PKVM_UNPROTECTED } from './backends/pkvm/technologies.ts';
import { SnpTechnology } from './backends/snp/technology.ts';
import { PLAIN, SW_PROTECTED } from './backends/software/technologies.ts';
import type { TdxOptions } from './backends/tdx/tdx-options.ts';
import { TdxTechnology } from './backends/tdx/technology.ts';
import { KvmDevice } from './dev-kvm.ts';
import { Kvm } from './kvm.ts';
import { DEFAULT_KVM_OPTIONS, type KvmOptions } from './kvm-options.ts';
import { createMemfile } from './memfile/memfile.ts';

/** Module parameters, those of the technologies by their names. @public */
export interface LoadOptions extends Partial<KvmOptions> {
  /** kvm_intel.tdx: TDs where the host can run them, with these choices; null turns them off. */
  readonly tdx?: Partial<TdxOptions> | null;
}

/** Once per kernel. Throws what a technology makes loading fail with. @public */
export async function loadKvm(kernel: HostKernel, { tdx, ...options }: LoadOptions = {}): Promise<Kvm> {
  // A kernel below which a hypervisor runs enters no guest itself.
  const tds = tdx === null ? [] : [new TdxTechnology(tdx)];
  const technologies: readonly Technology[] =
    kernel.machine.hypervisor === null
      ? [PLAIN, SW_PROTECTED, ...tds, new SnpTechnology(), PKVM]
      : [PKVM_UNPROTECTED, PKVM];
  const kvm = await Kvm.load(kernel, { ...DEFAULT_KVM_OPTIONS, ...options }, technologies);
  kernel.devices.register('/dev/kvm', () => new KvmDevice(kvm));
  if (kvm.options.memfile) kernel.inaccessibleMemfd = (name, flags) => createMemfile(kernel, name, flags);
  return kvm;
}
