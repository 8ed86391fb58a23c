/** Every event as its steps. */

import type { StepsOf } from '../abstract-host.ts';
import type { AbstractEventKind } from '../config.ts';
import { HOST_STEPS } from './host-steps.ts';
import { MEMORY_STEPS } from './memory-steps.ts';
import { TD_STEPS } from './td-steps.ts';
import { TDX_STEPS } from './tdx-steps.ts';

/** @internal */
export const STEPS: { readonly [K in AbstractEventKind]: StepsOf<K> } = {
  ...TD_STEPS,
  ...MEMORY_STEPS,
  ...TDX_STEPS,
  ...HOST_STEPS,
};
