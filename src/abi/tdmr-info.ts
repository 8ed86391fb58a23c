/** TDMR_INFO: what a host kernel tells SYS.CONFIG about one TDMR (facts: struct layouts, Linux host rules 1.5). */

/** Alignment of a TDMR_INFO and of the array of their addresses, in bytes. @public */
export const TDMR_INFO_ALIGNMENT = 512;
/** Bytes of a TDMR_INFO with room for every reserved area. @public */
export const TDMR_INFO_SIZE = 320;
/** Reserved areas a TDMR_INFO has room for. @public */
export const TDMR_INFO_RESERVED_AREAS = 16;

/** A part of a TDMR that holds no TD memory: offset from the TDMR's base and size, in bytes. @public */
export interface ReservedArea<N = number> {
  readonly offset: N;
  readonly size: N;
}

/**
 * Addresses and sizes in bytes. As a kernel builds it the values are `number`; as a module reads it from memory
 * that somebody else wrote, they are `bigint`.
 * @public
 */
export interface TdmrInfo<N = number> {
  readonly base: N;
  readonly size: N;
  readonly pamt1gBase: N;
  readonly pamt1gSize: N;
  readonly pamt2mBase: N;
  readonly pamt2mSize: N;
  /** With dynamic PAMT: the bitmap of pages lent to hold metadata. */
  readonly pamt4kBase: N;
  readonly pamt4kSize: N;
  /** Ascending; missing ones are empty. */
  readonly reserved: readonly ReservedArea<N>[];
}

const FIELDS = [
  'base',
  'size',
  'pamt1gBase',
  'pamt1gSize',
  'pamt2mBase',
  'pamt2mSize',
  'pamt4kBase',
  'pamt4kSize',
] as const satisfies readonly (keyof TdmrInfo)[];
const RESERVED_OFFSET = 64;
const RESERVED_STRIDE = 16;

/** The bytes of `info`, unused reserved areas zero. Throws when it has more than 16 of them. @public */
export function encodeTdmrInfo(info: TdmrInfo<number | bigint>): Uint8Array {
  if (info.reserved.length > TDMR_INFO_RESERVED_AREAS) {
    throw new Error(
      `a TDMR_INFO holds ${TDMR_INFO_RESERVED_AREAS} reserved areas, not ${info.reserved.length}`,
    );
  }
  const bytes = new Uint8Array(TDMR_INFO_SIZE);
  const view = new DataView(bytes.buffer);
  FIELDS.forEach((field, i) => {
    view.setBigUint64(8 * i, BigInt(info[field]), true);
  });
  info.reserved.forEach((area, i) => {
    view.setBigUint64(RESERVED_OFFSET + RESERVED_STRIDE * i, BigInt(area.offset), true);
    view.setBigUint64(RESERVED_OFFSET + RESERVED_STRIDE * i + 8, BigInt(area.size), true);
  });
  return bytes;
}

/** Takes `TDMR_INFO_SIZE` bytes apart, with all 16 reserved areas. @public */
export function decodeTdmrInfo(bytes: Uint8Array): TdmrInfo<bigint> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, TDMR_INFO_SIZE);
  const u64 = (offset: number): bigint => view.getBigUint64(offset, true);
  const [base, size, pamt1gBase, pamt1gSize, pamt2mBase, pamt2mSize, pamt4kBase, pamt4kSize] = FIELDS.map(
    (_, i) => u64(8 * i),
  ) as [bigint, bigint, bigint, bigint, bigint, bigint, bigint, bigint];
  const reserved = Array.from({ length: TDMR_INFO_RESERVED_AREAS }, (_, i) => ({
    offset: u64(RESERVED_OFFSET + RESERVED_STRIDE * i),
    size: u64(RESERVED_OFFSET + RESERVED_STRIDE * i + 8),
  }));
  return { base, size, pamt1gBase, pamt1gSize, pamt2mBase, pamt2mSize, pamt4kBase, pamt4kSize, reserved };
}
