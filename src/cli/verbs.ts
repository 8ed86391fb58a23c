/** Every verb of the command line, in the order of the overview. */
import type { Verb } from './verb.ts';

/** Options that choose how a host is brought up. */
const HOST_OPTIONS: Verb['options'] = [
  ['--holes <source>', 'reserved areas from gaps between memory blocks (memblock) or between CMRs (cmr)'],
  ['--module <release>', 'load this release of the TDX module instead of the one the host has'],
  ['--dynamic-pamt', 'use Dynamic PAMT where the module and the machine allow it'],
];

/** @internal */
export const VERBS: readonly Verb[] = [
  {
    name: 'plan',
    operands: '<host...>',
    summary: 'say how TDX would come up on a host: TDMRs, PAMTs, memory per node, and what fails and why',
    options: HOST_OPTIONS,
    load: () => import('./verbs/plan.ts'),
  },
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
