/** Firmware that plugs memory of a CMR in or takes it away: CMRs never change while the machine runs. */
import { type AddressRange, formatRange } from '../abi/address.ts';
import type { Reason } from '../abi/errno.ts';
import { intersect } from '../abi/ranges.ts';

/**
 * What is wrong with an ACPI event, or null. Before the CMRs are known, which takes VMX operation and the module, nobody
 * can tell.
 * @internal
 */
export function describeCmrConflict(
  type: 'memory-add' | 'memory-remove',
  range: AddressRange,
  cmrs: readonly AddressRange[] | null,
): Reason | null {
  const inside = intersect([range], cmrs ?? []);
  if (inside.length === 0) return null;
  const { start, end } = range;
  const what = type === 'memory-add' ? 'plugged in' : 'taken away';
  return {
    code: type === 'memory-add' ? 'cmr-memory-added' : 'cmr-memory-removed',
    text: `firmware bug or attack: memory ${formatRange({ start, end })} was ${what}, but ${inside.map(formatRange).join(', ')} of it is convertible memory, which is fixed since MCHECK verified it at boot`,
    data: { range: { start, end }, inside },
  };
}
