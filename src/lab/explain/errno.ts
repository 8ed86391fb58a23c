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

/** Every place that gives this errno; `only` keeps the places of one part of the host path. @internal */
export function explainErrno(errno: ErrnoName, only = ''): Explanation {
  const number = -ERRNO[errno];
  const cases = ERRNO_PLACES[errno].filter(({ where }) => where.startsWith(only));
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
