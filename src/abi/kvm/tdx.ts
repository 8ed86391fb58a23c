/** KVM_MEMORY_ENCRYPT_OP on TDs: commands and their structures (arch/x86/include/uapi/asm/kvm.h). */
import { struct, u32, u64, u64s } from '../struct.ts';
import { KVM_CPUID2 } from './structs.ts';

/** Command ids. @public */
export const KVM_TDX = {
  CAPABILITIES: 0,
  INIT_VM: 1,
  INIT_VCPU: 2,
  INIT_MEM_REGION: 3,
  FINALIZE_VM: 4,
  GET_CPUID: 5,
} as const;

/** A command's name. @public */
export type KvmTdxCommandName = keyof typeof KVM_TDX;

/** The argument of KVM_MEMORY_ENCRYPT_OP; `data` is a user address or a value, `hw_error` the module's status. @public */
export const KVM_TDX_CMD = struct({ id: u32, flags: u32, data: u64, hw_error: u64 });

/** KVM_TDX_CAPABILITIES; `cpuid.nent` entries follow. @public */
export const KVM_TDX_CAPABILITIES = struct({
  supported_attrs: u64,
  supported_xfam: u64,
  kernel_tdvmcallinfo_1_r11: u64,
  user_tdvmcallinfo_1_r11: u64,
  kernel_tdvmcallinfo_1_r12: u64,
  user_tdvmcallinfo_1_r12: u64,
  reserved: u64s(250),
  cpuid: KVM_CPUID2,
});

/** KVM_TDX_INIT_VM; `cpuid.nent` entries follow. @public */
export const KVM_TDX_INIT_VM = struct({
  attributes: u64,
  xfam: u64,
  mrconfigid: u64s(6),
  mrowner: u64s(6),
  mrownerconfig: u64s(6),
  reserved: u64s(12),
  cpuid: KVM_CPUID2,
});

/** KVM_TDX_INIT_MEM_REGION, copied back with what is left. @public */
export const KVM_TDX_INIT_MEM_REGION = struct({ source_addr: u64, gpa: u64, nr_pages: u64 });

/** Flag of KVM_TDX_INIT_MEM_REGION: extend the measurement by the pages' contents. @public */
export const KVM_TDX_MEASURE_MEMORY_REGION = 1;
