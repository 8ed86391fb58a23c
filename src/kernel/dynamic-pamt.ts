/** When Dynamic PAMT can be used (Linux host rules 1.13). */
import { hasFeature } from '../abi/features.ts';

/** Widest physical address, KeyID bits not counted, for which it is defined. */
const MAX_ADDRESS_BITS = 48;

/** Why it cannot be used, in words; null where it can. `keyIdStartBit` is the width without KeyID bits. @public */
export function dynamicPamtObstacle(features0: bigint, keyIdStartBit: number): string | null {
  if (!hasFeature(features0, 'DYNAMIC_PAMT')) return 'the module lacks it';
  return keyIdStartBit <= MAX_ADDRESS_BITS
    ? null
    : `physical addresses have ${keyIdStartBit} bits, it is defined for ${MAX_ADDRESS_BITS}`;
}
