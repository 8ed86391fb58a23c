/** Request numbers of KVM's ioctls, made of direction, size, type and number as Linux makes them. */
import {
  KVM_CPUID2,
  KVM_CREATE_GUEST_MEMFD,
  KVM_ENABLE_CAP,
  KVM_ENC_REGION,
  KVM_FPU,
  KVM_INTERRUPT,
  KVM_MEMORY_ATTRIBUTES,
  KVM_MEMORY_ATTRIBUTES2,
  KVM_MP_STATE,
  KVM_MSRS,
  KVM_PRE_FAULT_MEMORY,
  KVM_REGS,
  KVM_SIGNAL_MASK,
  KVM_SREGS,
  KVM_USERSPACE_MEMORY_REGION,
  KVM_USERSPACE_MEMORY_REGION2,
} from './structs.ts';

const KVMIO = 0xae;

/** Makers of request numbers: no argument, user space writes, user space reads, both. @public */
export const _IO = (type: number, nr: number): number => type * 0x100 + nr;
/** @public */
export const _IOW = (type: number, nr: number, arg: { readonly bytes: number }): number =>
  0x4000_0000 + arg.bytes * 0x1_0000 + _IO(type, nr);
/** @public */
export const _IOR = (type: number, nr: number, arg: { readonly bytes: number }): number =>
  0x8000_0000 + arg.bytes * 0x1_0000 + _IO(type, nr);
/** @public */
export const _IOWR = (type: number, nr: number, arg: { readonly bytes: number }): number =>
  0xc000_0000 + arg.bytes * 0x1_0000 + _IO(type, nr);

/** KVM's requests by name. @public */
export const KVM = {
  GET_API_VERSION: _IO(KVMIO, 0x00),
  CREATE_VM: _IO(KVMIO, 0x01),
  CHECK_EXTENSION: _IO(KVMIO, 0x03),
  GET_VCPU_MMAP_SIZE: _IO(KVMIO, 0x04),
  GET_SUPPORTED_CPUID: _IOWR(KVMIO, 0x05, KVM_CPUID2),
  CREATE_VCPU: _IO(KVMIO, 0x41),
  SET_USER_MEMORY_REGION: _IOW(KVMIO, 0x46, KVM_USERSPACE_MEMORY_REGION),
  SET_USER_MEMORY_REGION2: _IOW(KVMIO, 0x49, KVM_USERSPACE_MEMORY_REGION2),
  CREATE_IRQCHIP: _IO(KVMIO, 0x60),
  RUN: _IO(KVMIO, 0x80),
  GET_REGS: _IOR(KVMIO, 0x81, KVM_REGS),
  SET_REGS: _IOW(KVMIO, 0x82, KVM_REGS),
  GET_SREGS: _IOR(KVMIO, 0x83, KVM_SREGS),
  SET_SREGS: _IOW(KVMIO, 0x84, KVM_SREGS),
  INTERRUPT: _IOW(KVMIO, 0x86, KVM_INTERRUPT),
  GET_MSRS: _IOWR(KVMIO, 0x88, KVM_MSRS),
  SET_MSRS: _IOW(KVMIO, 0x89, KVM_MSRS),
  SET_SIGNAL_MASK: _IOW(KVMIO, 0x8b, KVM_SIGNAL_MASK),
  GET_FPU: _IOR(KVMIO, 0x8c, KVM_FPU),
  SET_FPU: _IOW(KVMIO, 0x8d, KVM_FPU),
  SET_CPUID2: _IOW(KVMIO, 0x90, KVM_CPUID2),
  GET_CPUID2: _IOWR(KVMIO, 0x91, KVM_CPUID2),
  GET_MP_STATE: _IOR(KVMIO, 0x98, KVM_MP_STATE),
  SET_MP_STATE: _IOW(KVMIO, 0x99, KVM_MP_STATE),
  NMI: _IO(KVMIO, 0x9a),
  SET_TSC_KHZ: _IO(KVMIO, 0xa2),
  GET_TSC_KHZ: _IO(KVMIO, 0xa3),
  ENABLE_CAP: _IOW(KVMIO, 0xa3, KVM_ENABLE_CAP),
  /** Its argument's size is that of an unsigned long, whatever the command. */
  MEMORY_ENCRYPT_OP: _IOWR(KVMIO, 0xba, { bytes: 8 }),
  MEMORY_ENCRYPT_REG_REGION: _IOR(KVMIO, 0xbb, KVM_ENC_REGION),
  MEMORY_ENCRYPT_UNREG_REGION: _IOR(KVMIO, 0xbc, KVM_ENC_REGION),
  SET_MEMORY_ATTRIBUTES: _IOW(KVMIO, 0xd2, KVM_MEMORY_ATTRIBUTES),
  /** On a guest_memfd. */
  SET_MEMORY_ATTRIBUTES2: _IOWR(KVMIO, 0xd2, KVM_MEMORY_ATTRIBUTES2),
  CREATE_GUEST_MEMFD: _IOWR(KVMIO, 0xd4, KVM_CREATE_GUEST_MEMFD),
  PRE_FAULT_MEMORY: _IOWR(KVMIO, 0xd5, KVM_PRE_FAULT_MEMORY),
} as const;

/** A request's name. @public */
export type KvmRequestName = keyof typeof KVM;
