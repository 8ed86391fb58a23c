/** Where a VM has its memory, as on QEMU's q35: RAM below the hole for devices, firmware below 4 GiB, the rest above. */
import { type AddressRange, GIB, hex, MIB } from '../../abi/address.ts';
import { InputError } from '../../abi/input-error.ts';
import { q35Memory } from '../td-hob.ts';

/** @public */
export interface GuestRange extends AddressRange {
  readonly name: 'low RAM' | 'firmware' | 'high RAM';
}

/** Guest memory unless told otherwise. @public */
export const DEFAULT_MEMORY_BYTES = 128 * MIB;

const FOUR_GIB = 4 * GIB;
/** Firmware lies between the local APIC's page and 4 GiB. */
const FIRMWARE_LIMIT = 0xfee0_1000;

/**
 * The ranges, ascending: `bytes` of RAM and room for firmware that begins at `firmwareStart`, none where it is null.
 * Throws InputError for a size that is no multiple of 4 KiB, and for firmware that begins elsewhere.
 * @public
 */
export function layOutMemory(bytes: number, firmwareStart: number | null = null): GuestRange[] {
  if (firmwareStart !== null && (firmwareStart < FIRMWARE_LIMIT || firmwareStart >= FOUR_GIB)) {
    throw new InputError(
      `firmware begins between ${hex(FIRMWARE_LIMIT)} and 4 GiB, not at ${hex(firmwareStart)}`,
    );
  }
  const [low, high] = q35Memory(bytes) as [AddressRange, AddressRange?];
  return [
    { ...low, name: 'low RAM' },
    ...(firmwareStart === null ? [] : [{ start: firmwareStart, end: FOUR_GIB, name: 'firmware' as const }]),
    ...(high === undefined ? [] : [{ ...high, name: 'high RAM' as const }]),
  ];
}
