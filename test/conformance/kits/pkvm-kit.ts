/** Protected VMs of pKVM: one file for private and shared memory, which guests share and unshare page by page. */
import { KVM_VM_TYPE } from '../../../src/abi/kvm/vm-types.ts';
import { sharePages, unsharePages } from '../../../src/lab/guest/pkvm-guest.ts';
import { PKVM } from '../subjects.ts';
import { BY_HYPERCALL, converting, type Kit, nothing } from './kit.ts';

export const PKVM_KIT: Kit = {
  subject: PKVM,
  vmType: KVM_VM_TYPE.ARM_PROTECTED,
  backing: 'in-place',
  startsPrivate: true,
  preserves: true,
  init: nothing,
  launch: nothing,
  guest: () => ({
    ...BY_HYPERCALL,
    convert: converting(function* (cpu, gpa, pages, isPrivate) {
      return BigInt(yield* (isPrivate ? unsharePages : sharePages)(cpu, gpa, pages));
    }),
  }),
};
