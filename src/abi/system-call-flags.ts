/** Flags of the system calls that memory and files need. Numbers are Linux's for x86-64. */

/** Flags of open. @public */
export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  ACCMODE: 3,
  LARGEFILE: 0x8000,
  CLOEXEC: 0x8_0000,
} as const;

/** Protection of a mapping. @public */
export const PROT = { NONE: 0, READ: 1, WRITE: 2, EXEC: 4 } as const;

/** Flags of mmap. @public */
export const MAP = {
  SHARED: 0x01,
  PRIVATE: 0x02,
  SHARED_VALIDATE: 0x03,
  /** The bits that hold the type. */
  TYPE: 0x0f,
  FIXED: 0x10,
  ANONYMOUS: 0x20,
  NORESERVE: 0x4000,
  POPULATE: 0x8000,
  FIXED_NOREPLACE: 0x10_0000,
} as const;

/** Modes of fallocate. @public */
export const FALLOC_FL = {
  KEEP_SIZE: 0x01,
  PUNCH_HOLE: 0x02,
  NO_HIDE_STALE: 0x04,
  COLLAPSE_RANGE: 0x08,
  ZERO_RANGE: 0x10,
  INSERT_RANGE: 0x20,
  UNSHARE_RANGE: 0x40,
  WRITE_ZEROES: 0x80,
} as const;

/** Advice to madvise. @public */
export const MADV = {
  NORMAL: 0,
  RANDOM: 1,
  SEQUENTIAL: 2,
  WILLNEED: 3,
  DONTNEED: 4,
  REMOVE: 9,
  DONTFORK: 10,
  DOFORK: 11,
  HUGEPAGE: 14,
  NOHUGEPAGE: 15,
  POPULATE_READ: 22,
  POPULATE_WRITE: 23,
  COLLAPSE: 25,
} as const;

/** Flags of memfd_create. @public */
export const MFD = {
  CLOEXEC: 0x1,
  ALLOW_SEALING: 0x2,
  NOEXEC_SEAL: 0x8,
  EXEC: 0x10,
  /** In kernels with the design before guest_memfd, proposed in 2022; later its bit became NOEXEC_SEAL. */
  INACCESSIBLE: 0x8,
} as const;

/** Memory policies of mbind and get_mempolicy. @public */
export const MPOL = {
  DEFAULT: 0,
  PREFERRED: 1,
  BIND: 2,
  INTERLEAVE: 3,
  LOCAL: 4,
  PREFERRED_MANY: 5,
  WEIGHTED_INTERLEAVE: 6,
} as const;

/** Flags of mbind. @public */
export const MPOL_MF = { STRICT: 1, MOVE: 2, MOVE_ALL: 4 } as const;
