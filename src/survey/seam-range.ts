/** Where the BIOS would have put the SEAM range, which no log shows. */
import { type AddressRange, alignUp, GIB, MIB } from '../abi/address.ts';
import { union } from '../abi/ranges.ts';

/** Size of the SEAM range on real machines: the hole that BIOSes leave above the first high CMR. */
const SEAM_BYTES = 32 * MIB;
const LOW_MEMORY_END = 4 * GIB;

/** The first place above a range of high memory, aligned to its size, that nothing else uses. @internal */
export function placeSeamRange(used: readonly AddressRange[]): AddressRange {
  const high = union(used).filter((range) => range.end > LOW_MEMORY_END);
  let start = alignUp(high[0]?.end ?? LOW_MEMORY_END, SEAM_BYTES);
  for (const range of high.slice(1)) {
    if (start + SEAM_BYTES <= range.start) break;
    start = Math.max(start, alignUp(range.end, SEAM_BYTES));
  }
  return { start, end: start + SEAM_BYTES };
}
