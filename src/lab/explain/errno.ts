/** Explains an errno of the TDX host path. */
import { ERRNO, type ErrnoName } from '../../abi/errno.ts';
import { ERRNO_PLACES } from './errno-places.ts';
import type { Explanation } from './explanation.ts';

const BY_NUMBER = new Map<number, ErrnoName>(
  (Object.entries(ERRNO) as [ErrnoName, number][]).map(([name, value]) => [value, name]),
);

/** The errno with this number, with or without its sign; undefined when the host path does not use it. @internal */
export function errnoNumbered(number: number): ErrnoName | undefined {
  return BY_NUMBER.get(Math.abs(number));
}

/** The errno called `word` (`ENOSPC`, `-ENOSPC`); undefined when the host path does not use it. @internal */
export function errnoNamed(word: string): ErrnoName | undefined {
  const name = word.toUpperCase().replace(/^-/, '');
  return Object.hasOwn(ERRNO, name) ? (name as ErrnoName) : undefined;
}

/** Every place that gives this errno; `only` keeps the places whose name has it, where there are any. @internal */
export function explainErrno(errno: ErrnoName, only = ''): Explanation {
  const number = -ERRNO[errno];
  const named = ERRNO_PLACES[errno].filter(({ where }) => where.includes(only));
  const cases = named.length > 0 ? named : ERRNO_PLACES[errno];
  const counted = cases.length === 1 ? 'one place' : `${cases.length} places`;
  return {
    kind: 'errno',
    name: errno,
    number: `${number}`,
    summary:
      only === ''
        ? `An errno that ${counted} of the TDX host path give${cases.length === 1 ? 's' : ''}.`
        : 'The errno in this line.',
    facts: [],
    cases,
    data: { errno: number },
    parts: [],
  };
}

/** What the C library calls an errno, as VMMs print it. */
const TEXTS: Readonly<Record<string, ErrnoName>> = {
  'Operation not permitted': 'EPERM',
  'No such file or directory': 'ENOENT',
  'Interrupted system call': 'EINTR',
  'Input/output error': 'EIO',
  'Argument list too long': 'E2BIG',
  'Bad file descriptor': 'EBADF',
  'Resource temporarily unavailable': 'EAGAIN',
  'Cannot allocate memory': 'ENOMEM',
  'Bad address': 'EFAULT',
  'Device or resource busy': 'EBUSY',
  'File exists': 'EEXIST',
  'No such device': 'ENODEV',
  'Invalid argument': 'EINVAL',
  'Inappropriate ioctl for device': 'ENOTTY',
  'No space left on device': 'ENOSPC',
  'Operation not supported': 'EOPNOTSUPP',
};

/** The errno that the C library describes so. @internal */
export function errnoDescribed(text: string): ErrnoName | undefined {
  return Object.hasOwn(TEXTS, text) ? TEXTS[text] : undefined;
}
