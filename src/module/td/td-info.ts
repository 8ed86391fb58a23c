/** TDINFO: what a TD is, as reports and service TD bindings state it (module facts 8). */
import { MEASUREMENT_BYTES } from '../../abi/measurement.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { ControlStructure } from './control-structure.ts';
import { TDCS } from './layout.ts';
import { sha384 } from './measurement.ts';

/** Bytes of TDINFO. @public */
export const TD_INFO_BYTES = 512;
/** MRTD, MRCONFIGID, MROWNER, MROWNERCONFIG and four RTMRs: side by side here as in the TDCS. */
const MEASUREMENTS = 8;
const OFFSET = { ATTRIBUTES: 0, XFAM: 8, MEASUREMENTS: 16, SERVTD_HASH: 400 } as const;

/** Offset and length of each part, by the number of its bit in a set of parts to ignore. */
const PARTS: readonly (readonly [offset: number, bytes: number])[] = [
  [OFFSET.ATTRIBUTES, 8],
  [OFFSET.XFAM, 8],
  ...Array.from(
    { length: MEASUREMENTS },
    (_, i) => [OFFSET.MEASUREMENTS + MEASUREMENT_BYTES * i, MEASUREMENT_BYTES] as const,
  ),
  [OFFSET.SERVTD_HASH, MEASUREMENT_BYTES],
];

/** TDINFO with its SHA-384. @public */
export interface TdInfo {
  readonly bytes: Uint8Array;
  readonly hash: Uint8Array;
  /** The hash was remembered from an earlier call, not computed. */
  readonly isHashKnown: boolean;
}

/**
 * Reads TDINFO under the RTMR lock, as the TD (`guest`) or the host takes it; or the lock's status. Parts whose bit is
 * set in `ignored` are zero.
 * @public
 */
export function readTdInfo(tdcs: ControlStructure, guest: boolean, ignored = 0): TdInfo | bigint {
  const locked = tdcs.tryLock(TDCS.RTMR_LOCK, 'shared', guest);
  if (locked !== STATUS.TDX_SUCCESS) return locked;
  const bytes = new Uint8Array(TD_INFO_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(OFFSET.ATTRIBUTES, tdcs.u64(TDCS.ATTRIBUTES), true);
  view.setBigUint64(OFFSET.XFAM, tdcs.u64(TDCS.XFAM), true);
  bytes.set(tdcs.bytes(TDCS.MRTD, MEASUREMENTS * MEASUREMENT_BYTES), OFFSET.MEASUREMENTS);
  bytes.set(tdcs.bytes(TDCS.SERVTD_HASH, MEASUREMENT_BYTES), OFFSET.SERVTD_HASH);
  PARTS.forEach(([offset, length], bit) => {
    if ((ignored & (1 << bit)) !== 0) bytes.fill(0, offset, offset + length);
  });
  const info =
    ignored === 0 ? withKnownHash(tdcs, bytes) : { bytes, hash: sha384(bytes), isHashKnown: false };
  tdcs.unlock(TDCS.RTMR_LOCK, 'shared');
  return info;
}

/** The hash of a whole TDINFO is kept until an RTMR changes. */
function withKnownHash(tdcs: ControlStructure, bytes: Uint8Array): TdInfo {
  const isHashKnown = tdcs.flag(TDCS.LAST_TEEINFO_HASH_VALID);
  if (!isHashKnown) {
    tdcs.setBytes(TDCS.LAST_TEEINFO_HASH, sha384(bytes));
    tdcs.setFlag(TDCS.LAST_TEEINFO_HASH_VALID, true);
  }
  return { bytes, hash: tdcs.bytes(TDCS.LAST_TEEINFO_HASH, MEASUREMENT_BYTES), isHashKnown };
}
