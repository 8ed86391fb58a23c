/**
 * Hand-off data: what a module leaves for its successor in the data region (module facts 3, SYS.SHUTDOWN). All
 * values are little endian and packed; format 1 adds two counts to format 0.
 */
import type { AddressRange } from '../abi/address.ts';
import { MAX_HKIDS, MAX_PKGS } from './kot.ts';
import { Pamt } from './pamt.ts';
import { Tdmr } from './tdmr-table.ts';
import type { TdxModule } from './tdx-module.ts';

/** Header of the hand-off data. @internal */
export interface HandoffHeader {
  readonly valid: boolean;
  /** Format version. */
  readonly hv: number;
  /** Bytes that follow the header. */
  readonly size: number;
}

const HEADER_SIZE = 8;
const HV_OFFSET = 2;
const SIZE_OFFSET = 4;
const KOT_ENTRY_SIZE = 8;
const WBT_ENTRY_SIZE = 2064;
const TDMR_ENTRY_SIZE = 320;
const MAX_TDMRS = 64;
const TDMR_RESERVED_OFFSET = 56;
const KOT_OFFSET = HEADER_SIZE;
const WBT_OFFSET = KOT_OFFSET + MAX_HKIDS * KOT_ENTRY_SIZE;
const TDMR_OFFSET = WBT_OFFSET + MAX_PKGS * WBT_ENTRY_SIZE;
const NUM_TDMRS_OFFSET = TDMR_OFFSET + MAX_TDMRS * TDMR_ENTRY_SIZE;
const HKID_OFFSET = NUM_TDMRS_OFFSET + 4;
const PACKAGES_OFFSET = HKID_OFFSET + 2;
const DYNAMIC_PAMT_OFFSET = PACKAGES_OFFSET + 4;
const TD_BUILD_COUNT_OFFSET = DYNAMIC_PAMT_OFFSET + 1;
const MIGRATION_COUNT_OFFSET = TD_BUILD_COUNT_OFFSET + 2;
const DATA_END = MIGRATION_COUNT_OFFSET + 2;
/** First format with the two counts. */
const COUNTS_SINCE_HV = 1;

/** The header of a data region; of an empty one, all zero. @internal */
export function readHandoffHeader(region: Uint8Array): HandoffHeader {
  if (region.length < HEADER_SIZE) return { valid: false, hv: 0, size: 0 };
  const view = viewOf(region);
  return {
    valid: view.getUint8(0) === 1,
    hv: view.getUint16(HV_OFFSET, true),
    size: view.getUint32(SIZE_OFFSET, true),
  };
}

/** Marks the data as taken over; its format version stays readable. @internal */
export function invalidateHandoff(region: Uint8Array): void {
  const view = viewOf(region);
  view.setUint8(0, 0);
  view.setUint32(SIZE_OFFSET, 0, true);
}

/** The data region that `module` leaves behind. @internal */
export function writeHandoff(module: TdxModule, hv: number): Uint8Array<ArrayBuffer> {
  const region = new Uint8Array(DATA_END);
  const view = viewOf(region);
  const { kot, pamt } = module;
  view.setUint8(0, 1);
  view.setUint16(HV_OFFSET, hv, true);
  // Older modules write the same size whatever the format asked for: the counts are simply not read.
  view.setUint32(SIZE_OFFSET, DATA_END - HEADER_SIZE, true);
  for (let keyId = 0; keyId < MAX_HKIDS; keyId++) {
    view.setUint32(KOT_OFFSET + keyId * KOT_ENTRY_SIZE, kot.pendingPackages[keyId]!, true);
    view.setUint8(KOT_OFFSET + keyId * KOT_ENTRY_SIZE + 4, kot.states[keyId]!);
  }
  for (const [i, entry] of module.writeBack.entries()) {
    const at = WBT_OFFSET + i * WBT_ENTRY_SIZE;
    view.setBigUint64(at, BigInt(entry.interruptedAt), true);
    region.set(entry.flushed, at + 8);
  }
  for (const [i, tdmr] of pamt.tdmrs.entries()) writeTdmr(view, TDMR_OFFSET + i * TDMR_ENTRY_SIZE, tdmr);
  view.setUint32(NUM_TDMRS_OFFSET, pamt.tdmrs.length, true);
  view.setUint16(HKID_OFFSET, module.globalKeyId, true);
  view.setUint32(PACKAGES_OFFSET, module.configuredPackages, true);
  view.setUint8(DYNAMIC_PAMT_OFFSET, pamt.dynamic ? 1 : 0);
  view.setUint16(TD_BUILD_COUNT_OFFSET, module.tdBuildCount, true);
  view.setUint16(MIGRATION_COUNT_OFFSET, module.migrationInterruptedCount, true);
  return region;
}

/** Gives `module` what its predecessor left in `region`. @internal */
export function restoreHandoff(module: TdxModule, region: Uint8Array, hv: number): void {
  const view = viewOf(region);
  const { kot } = module;
  for (let keyId = 0; keyId < MAX_HKIDS; keyId++) {
    kot.pendingPackages[keyId] = view.getUint32(KOT_OFFSET + keyId * KOT_ENTRY_SIZE, true);
    kot.states[keyId] = view.getUint8(KOT_OFFSET + keyId * KOT_ENTRY_SIZE + 4);
  }
  for (const [i, entry] of module.writeBack.entries()) {
    const at = WBT_OFFSET + i * WBT_ENTRY_SIZE;
    entry.interruptedAt = Number(view.getBigUint64(at, true));
    entry.flushed.set(region.subarray(at + 8, at + 8 + MAX_HKIDS));
  }
  const tdmrs = Array.from({ length: view.getUint32(NUM_TDMRS_OFFSET, true) }, (_, i) =>
    readTdmr(view, TDMR_OFFSET + i * TDMR_ENTRY_SIZE),
  );
  module.globalKeyId = view.getUint16(HKID_OFFSET, true);
  module.configuredPackages = view.getUint32(PACKAGES_OFFSET, true);
  const dynamic = view.getUint8(DYNAMIC_PAMT_OFFSET) === 1;
  module.pamt = new Pamt(module.machine.memory, tdmrs, module.globalKeyId, dynamic);
  const hasCounts = hv >= COUNTS_SINCE_HV;
  module.tdBuildCount = hasCounts ? view.getUint16(TD_BUILD_COUNT_OFFSET, true) : 0;
  module.migrationInterruptedCount = hasCounts ? view.getUint16(MIGRATION_COUNT_OFFSET, true) : 0;
}

function writeTdmr(view: DataView, at: number, tdmr: Tdmr): void {
  const words = [tdmr.base, tdmr.size, tdmr.nextToInit, tdmr.pamt1gBase, tdmr.pamt2mBase, tdmr.pamt4kBase];
  words.forEach((word, i) => {
    view.setBigUint64(at + 8 * i, BigInt(word), true);
  });
  view.setUint32(at + 48, tdmr.size / 2 ** 30, true);
  view.setUint32(at + 52, tdmr.reserved.length, true);
  tdmr.reserved.forEach((area, i) => {
    const offset = at + TDMR_RESERVED_OFFSET + 16 * i;
    view.setBigUint64(offset, BigInt(area.start - tdmr.base), true);
    view.setBigUint64(offset + 8, BigInt(area.end - area.start), true);
  });
}

function readTdmr(view: DataView, at: number): Tdmr {
  const word = (offset: number): number => Number(view.getBigUint64(at + offset, true));
  const base = word(0);
  const reserved: AddressRange[] = Array.from({ length: view.getUint32(at + 52, true) }, (_, i) => {
    const start = base + word(TDMR_RESERVED_OFFSET + 16 * i);
    return { start, end: start + word(TDMR_RESERVED_OFFSET + 16 * i + 8) };
  });
  return new Tdmr(
    base,
    word(8),
    { base1g: word(24), base2m: word(32), base4k: word(40) },
    reserved,
    word(16),
  );
}

function viewOf(region: Uint8Array): DataView {
  return new DataView(region.buffer, region.byteOffset, region.byteLength);
}
