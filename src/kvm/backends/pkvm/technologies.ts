/** The kinds of VM of a host with the pKVM hypervisor: protected ones, and ordinary ones that it keeps apart too. */
import { KVM_VM_TYPE } from '../../../abi/kvm/vm-types.ts';
import type { Technology } from '../../backend.ts';
import { PKVM_FILE, PLAIN_FILE } from '../../guest-memfd/technologies.ts';
import { PkvmBackend } from './pkvm-backend.ts';
import { enterProtectedMode } from './protected-mode.ts';

/** KVM_VM_TYPE_ARM_PROTECTED. @public */
export const PKVM: Technology = {
  name: 'pkvm',
  vmType: KVM_VM_TYPE.ARM_PROTECTED,
  probe: enterProtectedMode,
  create: (vm) => new PkvmBackend(vm, PKVM_FILE, true),
};

/** VMs of the default type on such a host: they go through the hypervisor and borrow the host's memory. @public */
export const PKVM_UNPROTECTED: Technology = {
  name: 'pkvm',
  vmType: KVM_VM_TYPE.DEFAULT,
  probe: enterProtectedMode,
  create: (vm) => new PkvmBackend(vm, PLAIN_FILE, false),
};
