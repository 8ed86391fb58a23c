/** SEV-SNP as a kind of VM that KVM may offer. */
import type { Reason } from '../../../abi/errno.ts';
import { KVM_X86_SEV_VMSA_FEATURES } from '../../../abi/kvm/sev.ts';
import { KVM_VM_TYPE } from '../../../abi/kvm/vm-types.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import type { UserArg } from '../../../kernel/process/system-calls.ts';
import type { Task } from '../../../kernel/process/task.ts';
import type { Technology } from '../../backend.ts';
import type { Vm } from '../../vm.ts';
import { enableSnp } from './enable-snp.ts';
import { refuseForeign } from './sev-commands.ts';
import { SnpBackend } from './snp-backend.ts';
import { SnpHost } from './snp-host.ts';

/** @public */
export class SnpTechnology implements Technology {
  readonly name = 'snp';
  readonly vmType = KVM_VM_TYPE.SNP;
  #host: SnpHost | null = null;

  /** What all SNP guests share; null where the host has no SNP. */
  get host(): SnpHost | null {
    return this.#host;
  }

  probe(kernel: HostKernel): Reason | null {
    const found = enableSnp(kernel);
    if (!(found instanceof SnpHost)) return found;
    this.#host = found;
    return null;
  }

  create(vm: Vm): SnpBackend {
    return new SnpBackend(vm, this.#host!);
  }

  deviceAttribute(group: number, attribute: bigint): bigint | undefined {
    const features = KVM_X86_SEV_VMSA_FEATURES;
    return group === features.group && attribute === features.attr ? this.#host!.vmsaFeatures : undefined;
  }

  refuseEncryption(task: Task, arg: UserArg): Promise<never> {
    return refuseForeign(task, arg);
  }
}
