/**
 * The third kind of failure: an errno that crosses the system-call wall, always with a reason.
 * Numbers are Linux's for x86-64.
 */

/** Errno values of the TDX host path and of the system calls that KVM's users make. @public */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  ENAMETOOLONG: 36,
  EOVERFLOW: 75,
  EOPNOTSUPP: 95,
  EHWPOISON: 133,
} as const;

/** An errno's name. @public */
export type ErrnoName = keyof typeof ERRNO;

/**
 * Why something was refused: a stable code for programs, one sentence for a person, and the data
 * (which range, which CMR, which limit).
 * @public
 */
export interface Reason {
  readonly code: string;
  readonly text: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** A refusal that crosses the system-call wall. @public */
export class KernelError extends Error {
  readonly errno: ErrnoName;
  readonly reason: Reason;
  constructor(errno: ErrnoName, code: string, text: string, data: Record<string, unknown> = {}) {
    super(text);
    this.name = 'KernelError';
    this.errno = errno;
    this.reason = { code, text, data };
  }

  /** The negative number a kernel log prints, such as -28. */
  get number(): number {
    return -ERRNO[this.errno];
  }
}
