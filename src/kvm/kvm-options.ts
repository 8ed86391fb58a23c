/** Module parameters of KVM. */
import { DEFAULT_GUEST_MEMFD_OPTIONS, type GuestMemfdOptions } from './guest-memfd/vm-files.ts';

/** @public */
export interface KvmOptions extends GuestMemfdOptions {
  /** Most vCPUs of a VM (CONFIG_KVM_MAX_NR_VCPUS). */
  readonly maxVcpus: number;
}

/** What kernels do unless told otherwise. @public */
export const DEFAULT_KVM_OPTIONS: KvmOptions = { ...DEFAULT_GUEST_MEMFD_OPTIONS, maxVcpus: 1024 };

/** vCPU ids are below it (KVM_MAX_VCPU_IDS): four times as many as vCPUs by default. @public */
export const MAX_VCPU_IDS = 4096;
/** Slots of user space in each address space (KVM_USER_MEM_SLOTS: SHRT_MAX less three of the kernel's own). @public */
export const MAX_SLOTS = 32764;
/** Pages of a slot (KVM_MEM_MAX_NR_PAGES). @public */
export const MAX_SLOT_PAGES = 2n ** 31n - 1n;
