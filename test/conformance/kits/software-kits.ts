/** VMs that nothing but the host's kernel protects. */
import { KVM_VM_TYPE } from '../../../src/abi/kvm/vm-types.ts';
import { PLAIN, SW_PROTECTED } from '../subjects.ts';
import { BY_HYPERCALL, type Kit, nothing } from './kit.ts';

/** All memory is shared, so conversion is nothing. */
export const PLAIN_KIT: Kit = {
  subject: PLAIN,
  vmType: KVM_VM_TYPE.DEFAULT,
  backing: 'anonymous',
  startsPrivate: false,
  preserves: true,
  init: nothing,
  launch: nothing,
  guest: () => ({
    ...BY_HYPERCALL,
    *convert(cpu) {
      yield* cpu.interrupt();
      return 0n;
    },
  }),
};

export const SW_PROTECTED_KIT: Kit = {
  subject: SW_PROTECTED,
  vmType: KVM_VM_TYPE.SW_PROTECTED,
  backing: 'split',
  startsPrivate: false,
  preserves: true,
  init: nothing,
  launch: nothing,
  guest: () => BY_HYPERCALL,
};
