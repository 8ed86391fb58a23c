/** The two kinds of VM without hardware protection. */
import { KVM_VM_TYPE } from '../../../abi/kvm/vm-types.ts';
import type { Technology } from '../../backend.ts';
import { PLAIN_FILE, SW_PROTECTED_FILE } from '../../guest-memfd/technologies.ts';
import { SoftwareBackend } from './software-backend.ts';

/** KVM_X86_DEFAULT_VM: the host sees everything. @public */
export const PLAIN: Technology = {
  name: 'plain',
  vmType: KVM_VM_TYPE.DEFAULT,
  probe: () => null,
  create: (vm) => new SoftwareBackend(vm, PLAIN_FILE),
};

/** KVM_X86_SW_PROTECTED_VM: private memory by attributes, in the same page tables, for testing. @public */
export const SW_PROTECTED: Technology = {
  name: 'sw-protected',
  vmType: KVM_VM_TYPE.SW_PROTECTED,
  probe: () => null,
  create: (vm) => new SoftwareBackend(vm, SW_PROTECTED_FILE),
};
