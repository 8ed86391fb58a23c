/** What came of an attempt to read something of a machine. */

/** Why something is not there: no such file, not for this user, or something else went wrong. @public */
export interface Missing {
  readonly state: 'absent' | 'denied' | 'failed';
  readonly why: string;
}

/** @public */
export type Reading<T> = { readonly state: 'read'; readonly value: T } | Missing;

/** Errno names that mean: this user may not. */
const DENIED: ReadonlySet<string> = new Set(['EACCES', 'EPERM']);
/** Errno names that mean: there is none. ENXIO and ENODEV are those of drivers without a device. */
const ABSENT: ReadonlySet<string> = new Set(['ENOENT', 'ENOTDIR', 'ENXIO', 'ENODEV']);

/** @internal */
export const ABSENT_FILE: Missing = { state: 'absent', why: 'there is none' };

/** The value, or undefined. @internal */
export function valueRead<T>(reading: Reading<T>): T | undefined {
  return reading.state === 'read' ? reading.value : undefined;
}

/** What `read` returns, or what its system call's error means. Errors without an errno pass through. @internal */
export function attempt<T>(read: () => T): Reading<T> {
  try {
    return { state: 'read', value: read() };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    if (ABSENT.has(code)) return ABSENT_FILE;
    if (DENIED.has(code)) return { state: 'denied', why: 'this user may not read it' };
    return { state: 'failed', why: `reading it failed with ${code}` };
  }
}
