/** When Dynamic PAMT can be used (Linux host rules 1.13). */

/** TDX_FEATURES0 bit 36. */
const DYNAMIC_PAMT = 1n << 36n;
/** Widest physical address, KeyID bits not counted, for which it is defined. */
const MAX_ADDRESS_BITS = 48;

/** Why it cannot be used, in words; null where it can. `keyIdStartBit` is the width without KeyID bits. @public */
export function dynamicPamtObstacle(features0: bigint, keyIdStartBit: number): string | null {
  if ((features0 & DYNAMIC_PAMT) === 0n) return 'the module lacks it';
  return keyIdStartBit <= MAX_ADDRESS_BITS
    ? null
    : `physical addresses have ${keyIdStartBit} bits, it is defined for ${MAX_ADDRESS_BITS}`;
}
