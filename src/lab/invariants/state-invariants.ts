/** All invariants of the module's state between calls. */
import {
  associationsAreCounted,
  childCountsBalance,
  epochCountsEqualEnteredVcpus,
  keyIdBelongsToOneTd,
  locksAreFreeBetweenCalls,
  rememberedTdsAreCurrent,
} from './count-invariants.ts';
import type { StateInvariant } from './invariant.ts';
import {
  pagePairsCountTheirPages,
  pamtAndSecureEptAgree,
  privatePageIsMappedOnce,
  privatePagesAreUnreadableByTheHost,
} from './memory-invariants.ts';

/** @public */
export const STATE_INVARIANTS: readonly StateInvariant[] = [
  pamtAndSecureEptAgree,
  privatePageIsMappedOnce,
  privatePagesAreUnreadableByTheHost,
  pagePairsCountTheirPages,
  childCountsBalance,
  epochCountsEqualEnteredVcpus,
  associationsAreCounted,
  keyIdBelongsToOneTd,
  locksAreFreeBetweenCalls,
  rememberedTdsAreCurrent,
];
