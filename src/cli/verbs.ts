/** Every verb of the command line, in the order of the overview. */
import type { Verb } from './verb.ts';

/** @internal */
export const VERBS: readonly Verb[] = [
  {
    name: 'explain',
    operands: '<word...>',
    summary:
      'decode a status, leaf number, metadata field id, errno or log line, and say what to do about it',
    options: [],
    load: () => import('./verbs/explain.ts'),
  },
  {
    name: 'modules',
    operands: '[diff] [releases...]',
    summary: 'list the TDX module releases known; `modules diff A B` compares two of them',
    options: [],
    load: () => import('./verbs/modules.ts'),
  },
];
