/**
 * struct kvm_run, the page a vCPU shares with user space: a common part, then at offset 32 a union that the exit reason
 * tells how to read.
 */
import { bytes, struct, u8, u16, u32, u32s, u64, u64s } from '../struct.ts';

/** Exit reasons. @public */
export const KVM_EXIT = {
  UNKNOWN: 0,
  EXCEPTION: 1,
  IO: 2,
  HYPERCALL: 3,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  IRQ_WINDOW_OPEN: 7,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  SET_TPR: 11,
  TPR_ACCESS: 12,
  NMI: 16,
  INTERNAL_ERROR: 17,
  SYSTEM_EVENT: 24,
  IOAPIC_EOI: 26,
  X86_RDMSR: 29,
  X86_WRMSR: 30,
  DIRTY_RING_FULL: 31,
  X86_BUS_LOCK: 33,
  NOTIFY: 37,
  /** Number of MEMORY_FAULT's predecessor in the series that brought private memory by file descriptor, 2022. */
  MEMORY_ERROR: 36,
  MEMORY_FAULT: 39,
  TDX: 40,
} as const;

/** An exit reason's name. @public */
export type KvmExitName = keyof typeof KVM_EXIT;

/** What every exit fills. @public */
export const KVM_RUN_COMMON = struct({
  request_interrupt_window: u8,
  immediate_exit: u8,
  padding1: bytes(6),
  exit_reason: u32,
  ready_for_interrupt_injection: u8,
  if_flag: u8,
  flags: u16,
  cr8: u64,
  apic_base: u64,
});

/** Offset of the union in struct kvm_run. @public */
export const KVM_RUN_EXIT_OFFSET = KVM_RUN_COMMON.bytes;
/** Bytes of the union's padding, which is its size. @public */
export const KVM_RUN_EXIT_BYTES = 256;
/** sizeof(struct kvm_run): the union, valid and dirty register sets, and room for them. @public */
export const KVM_RUN_BYTES = KVM_RUN_EXIT_OFFSET + KVM_RUN_EXIT_BYTES + 16 + 2048;

/** Direction of an I/O exit. @public */
export const KVM_EXIT_IO = { IN: 0, OUT: 1 } as const;
/** Hypercalls that exit to user space, and MAP_GPA_RANGE's attributes: 4 KiB page size is 0. @public */
export const KVM_HC_MAP_GPA_RANGE = 12;
/** @public */
export const KVM_MAP_GPA_RANGE = { PAGE_SZ_4K: 0n, PAGE_SZ_2M: 1n, PAGE_SZ_1G: 2n, ENC_STAT: 0x10n } as const;
/** Suberrors of an internal error. @public */
export const KVM_INTERNAL_ERROR = {
  EMULATION: 1,
  SIMUL_EX: 2,
  DELIVERY_EV: 3,
  UNEXPECTED_EXIT_REASON: 4,
} as const;
/** Types of system event. @public */
export const KVM_SYSTEM_EVENT = {
  SHUTDOWN: 1,
  RESET: 2,
  CRASH: 3,
  WAKEUP: 4,
  SUSPEND: 5,
  SEV_TERM: 6,
  TDX_FATAL: 7,
} as const;
/** Flag of a memory fault: the access was to private memory. @public */
export const KVM_MEMORY_EXIT_FLAG_PRIVATE = 8n;
/** The same flag of KVM_EXIT_MEMORY_ERROR. @public */
export const KVM_MEMORY_ERROR_FLAG_PRIVATE = 1;

/** The union's members, each at `KVM_RUN_EXIT_OFFSET`. @public */
export const KVM_RUN_EXIT = {
  UNKNOWN: struct({ hardware_exit_reason: u64 }),
  FAIL_ENTRY: struct({ hardware_entry_failure_reason: u64, cpu: u32, padding: u32 }),
  EXCEPTION: struct({ exception: u32, error_code: u32 }),
  /** `data_offset` is from the start of struct kvm_run. */
  IO: struct({ direction: u8, size: u8, port: u16, count: u32, data_offset: u64 }),
  MMIO: struct({ phys_addr: u64, data: bytes(8), len: u32, is_write: u8, padding: bytes(3) }),
  HYPERCALL: struct({ nr: u64, args: u64s(6), ret: u64, flags: u64 }),
  INTERNAL_ERROR: struct({ suberror: u32, ndata: u32, data: u64s(16) }),
  SYSTEM_EVENT: struct({ type: u32, ndata: u32, data: u64s(16) }),
  MSR: struct({ error: u8, padding: bytes(7), reason: u32, index: u32, data: u64 }),
  MEMORY_FAULT: struct({ flags: u64, gpa: u64, size: u64 }),
  MEMORY_ERROR: struct({ flags: u32, padding: u32, gpa: u64, size: u64 }),
  TDX_UNKNOWN: struct({ flags: u64, nr: u64, ret: u64, data: u64s(5) }),
  TDX_GET_QUOTE: struct({ flags: u64, nr: u64, ret: u64, gpa: u64, size: u64 }),
  TDX_GET_TDVMCALL_INFO: struct({
    flags: u64,
    nr: u64,
    ret: u64,
    leaf: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
  }),
  TDX_SETUP_EVENT_NOTIFY: struct({ flags: u64, nr: u64, ret: u64, vector: u64 }),
  NOTIFY: struct({ flags: u32 }),
  PADDING: struct({ words: u32s(KVM_RUN_EXIT_BYTES / 4) }),
} as const;
