/** Programs so small that every order of their turns can be tried. */
import type { Program } from './program.ts';

const alone = { budget: 100, discards: false } as const;

/** By what they are about. */
export const TINY_PROGRAMS: Readonly<Record<string, Program>> = {
  'a private page is written while user space loads': {
    ...alone,
    guests: [[{ do: 'write', page: 0, kind: 'private' }]],
    hosts: [[{ do: 'load', page: 0 }]],
  },
  'a private page is written while it is punched': {
    ...alone,
    guests: [[{ do: 'write', page: 4, kind: 'private' }]],
    hosts: [[{ do: 'punch', page: 4, pages: 1 }]],
  },
  'a page is written while it is made shared': {
    ...alone,
    guests: [[{ do: 'write', page: 4, kind: 'private' }]],
    hosts: [[{ do: 'convert', page: 4, pages: 1, toPrivate: false }]],
  },
};
