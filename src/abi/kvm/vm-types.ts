/** Types of VM that KVM_CREATE_VM takes on x86, and the pKVM type of arm64. */

/** The argument of KVM_CREATE_VM. @public */
export const KVM_VM_TYPE = {
  DEFAULT: 0,
  /** Private memory kept by software only, for testing. */
  SW_PROTECTED: 1,
  SEV: 2,
  SEV_ES: 3,
  SNP: 4,
  TDX: 5,
  /** arm64's protected VM of pKVM: bit 31 of the type. */
  ARM_PROTECTED: 0x8000_0000,
} as const;

/** A VM type's name. @public */
export type KvmVmTypeName = keyof typeof KVM_VM_TYPE;
