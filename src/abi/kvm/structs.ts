/** Structures of KVM's general ioctls; those of one technology are in tdx.ts and sev.ts. */
import { array, bytes, struct, u8, u16, u32, u32s, u64, u64s } from '../struct.ts';

/** Flags of a memory slot. @public */
export const KVM_MEM = { LOG_DIRTY_PAGES: 1, READONLY: 2, GUEST_MEMFD: 4 } as const;
/** The flag that says a slot of KVM_USERSPACE_MEMORY_REGION_EXT is private, 2022. @public */
export const KVM_MEM_PRIVATE = 4;
/** Flags of KVM_CREATE_GUEST_MEMFD. @public */
export const GUEST_MEMFD_FLAG = { MMAP: 1n, INIT_SHARED: 2n } as const;
/** The one memory attribute there is. @public */
export const KVM_MEMORY_ATTRIBUTE_PRIVATE = 8n;

/** KVM_SET_USER_MEMORY_REGION. @public */
export const KVM_USERSPACE_MEMORY_REGION = struct({
  slot: u32,
  flags: u32,
  guest_phys_addr: u64,
  memory_size: u64,
  userspace_addr: u64,
});

/** KVM_SET_USER_MEMORY_REGION2. @public */
export const KVM_USERSPACE_MEMORY_REGION2 = struct({
  slot: u32,
  flags: u32,
  guest_phys_addr: u64,
  memory_size: u64,
  userspace_addr: u64,
  guest_memfd_offset: u64,
  guest_memfd: u32,
  pad1: u32,
  pad2: u64s(14),
});

/** The region of the series of 2022: KVM_SET_USER_MEMORY_REGION with KVM_MEM_PRIVATE. @public */
export const KVM_USERSPACE_MEMORY_REGION_EXT = struct({
  region: KVM_USERSPACE_MEMORY_REGION,
  private_offset: u64,
  private_fd: u32,
  pad1: u32,
  pad2: u64s(14),
});

/** KVM_SET_MEMORY_ATTRIBUTES. @public */
export const KVM_MEMORY_ATTRIBUTES = struct({ address: u64, size: u64, attributes: u64, flags: u64 });

/** KVM_SET_MEMORY_ATTRIBUTES2, on a guest_memfd: `offset` in the file. @public */
export const KVM_MEMORY_ATTRIBUTES2 = struct({
  offset: u64,
  size: u64,
  attributes: u64,
  flags: u64,
  error_offset: u64,
  reserved: u64s(11),
});

/** KVM_CREATE_GUEST_MEMFD. @public */
export const KVM_CREATE_GUEST_MEMFD = struct({ size: u64, flags: u64, reserved: u64s(6) });

/** KVM_PRE_FAULT_MEMORY. @public */
export const KVM_PRE_FAULT_MEMORY = struct({ gpa: u64, size: u64, flags: u64, padding: u64s(5) });

/** KVM_ENABLE_CAP. @public */
export const KVM_ENABLE_CAP = struct({ cap: u32, flags: u32, args: u64s(4), pad: bytes(64) });

/** KVM_GET_DEVICE_ATTR and its like; `addr` is where the value is. @public */
export const KVM_DEVICE_ATTR = struct({ flags: u32, group: u32, attr: u64, addr: u64 });

/** KVM_MEMORY_ENCRYPT_REG_REGION and UNREG. @public */
export const KVM_ENC_REGION = struct({ addr: u64, size: u64 });

/** KVM_GET_REGS and SET_REGS. @public */
export const KVM_REGS = struct({
  rax: u64,
  rbx: u64,
  rcx: u64,
  rdx: u64,
  rsi: u64,
  rdi: u64,
  rsp: u64,
  rbp: u64,
  r8: u64,
  r9: u64,
  r10: u64,
  r11: u64,
  r12: u64,
  r13: u64,
  r14: u64,
  r15: u64,
  rip: u64,
  rflags: u64,
});

/** A segment register. @public */
export const KVM_SEGMENT = struct({
  base: u64,
  limit: u32,
  selector: u16,
  type: u8,
  present: u8,
  dpl: u8,
  db: u8,
  s: u8,
  l: u8,
  g: u8,
  avl: u8,
  unusable: u8,
  padding: u8,
});

/** GDTR or IDTR. @public */
export const KVM_DTABLE = struct({ base: u64, limit: u16, padding: bytes(6) });

/** KVM_GET_SREGS and SET_SREGS. @public */
export const KVM_SREGS = struct({
  cs: KVM_SEGMENT,
  ds: KVM_SEGMENT,
  es: KVM_SEGMENT,
  fs: KVM_SEGMENT,
  gs: KVM_SEGMENT,
  ss: KVM_SEGMENT,
  tr: KVM_SEGMENT,
  ldt: KVM_SEGMENT,
  gdt: KVM_DTABLE,
  idt: KVM_DTABLE,
  cr0: u64,
  cr2: u64,
  cr3: u64,
  cr4: u64,
  cr8: u64,
  efer: u64,
  apic_base: u64,
  interrupt_bitmap: u64s(4),
});

/** What KVM_GET_SUPPORTED_CPUID, SET_CPUID2 and others begin with; `nent` entries follow. @public */
export const KVM_CPUID2 = struct({ nent: u32, padding: u32 });

/** One entry of struct kvm_cpuid2. @public */
export const KVM_CPUID_ENTRY2 = struct({
  function: u32,
  index: u32,
  flags: u32,
  eax: u32,
  ebx: u32,
  ecx: u32,
  edx: u32,
  padding: u32s(3),
});

/** The entry's index counts. @public */
export const KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1;
/** Most entries KVM takes. @public */
export const KVM_MAX_CPUID_ENTRIES = 256;

/** KVM_GET_MP_STATE and SET_MP_STATE. @public */
export const KVM_MP_STATE = struct({ mp_state: u32 });

/** KVM_INTERRUPT. @public */
export const KVM_INTERRUPT = struct({ irq: u32 });

/** KVM_SET_SIGNAL_MASK; the mask's bytes follow. @public */
export const KVM_SIGNAL_MASK = struct({ len: u32 });

/** One entry of struct kvm_msrs. @public */
export const KVM_MSR_ENTRY = struct({ index: u32, reserved: u32, data: u64 });

/** Flags of a filter as a whole, and of its ranges. @public */
export const KVM_MSR_FILTER_FLAG = { DEFAULT_DENY: 1, READ: 1, WRITE: 2 } as const;
/** Most ranges of a filter, and most bytes of a range's bitmap. @public */
export const KVM_MSR_FILTER_LIMIT = { ranges: 16, bitmapBytes: 0x600 } as const;

/** A range of struct kvm_msr_filter; `bitmap` is a user address, a set bit allows. @public */
export const KVM_MSR_FILTER_RANGE = struct({ flags: u32, nmsrs: u32, base: u32, pad: u32, bitmap: u64 });

/** KVM_X86_SET_MSR_FILTER. @public */
export const KVM_MSR_FILTER = struct({
  flags: u32,
  pad: u32,
  ranges: array(KVM_MSR_FILTER_RANGE, KVM_MSR_FILTER_LIMIT.ranges),
});

/** What KVM_GET_MSRS and SET_MSRS begin with; `nmsrs` entries follow. @public */
export const KVM_MSRS = struct({ nmsrs: u32, pad: u32 });

/** KVM_GET_FPU and SET_FPU. @public */
export const KVM_FPU = struct({
  fpr: array(bytes(16), 8),
  fcw: u16,
  fsw: u16,
  ftwx: u8,
  pad1: u8,
  last_opcode: u16,
  last_ip: u64,
  last_dp: u64,
  xmm: array(bytes(16), 16),
  mxcsr: u32,
  pad2: u32,
});
