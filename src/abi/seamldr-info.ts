/** SEAMLDR_INFO: what P-SEAMLDR tells of itself (Linux host rules 1.5). */

/** Bytes of the structure, and its alignment. @public */
export const SEAMLDR_INFO_SIZE = 256;

/** @public */
export interface SeamldrInfo {
  readonly major: number;
  readonly minor: number;
  readonly update: number;
  /** Decimal YYYYMMDD. */
  readonly buildDate: number;
  readonly buildNumber: number;
  readonly vendorId: number;
  readonly attributes: number;
  /** Module updates that may still be made before the next reset of the machine. */
  readonly remainingUpdates: number;
  /** A TDX module is installed and ready. */
  readonly seamReady: boolean;
}

const OFFSET = {
  attributes: 4,
  vendorId: 8,
  buildDate: 12,
  buildNumber: 16,
  minor: 18,
  major: 20,
  update: 22,
  remainingUpdates: 28,
  seamReady: 160,
  pSeamReady: 162,
} as const;

/** @public */
export function encodeSeamldrInfo(info: SeamldrInfo): Uint8Array {
  const bytes = new Uint8Array(SEAMLDR_INFO_SIZE);
  const view = new DataView(bytes.buffer);
  for (const field of ['attributes', 'vendorId', 'buildDate', 'remainingUpdates'] as const) {
    view.setUint32(OFFSET[field], info[field], true);
  }
  for (const field of ['buildNumber', 'minor', 'major', 'update'] as const) {
    view.setUint16(OFFSET[field], info[field], true);
  }
  view.setUint8(OFFSET.seamReady, info.seamReady ? 1 : 0);
  // P-SEAMLDR is ready whenever it can answer at all.
  view.setUint8(OFFSET.pSeamReady, 1);
  return bytes;
}

/** @public */
export function decodeSeamldrInfo(bytes: Uint8Array): SeamldrInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, SEAMLDR_INFO_SIZE);
  const u32 = (offset: number): number => view.getUint32(offset, true);
  const u16 = (offset: number): number => view.getUint16(offset, true);
  return {
    major: u16(OFFSET.major),
    minor: u16(OFFSET.minor),
    update: u16(OFFSET.update),
    buildDate: u32(OFFSET.buildDate),
    buildNumber: u16(OFFSET.buildNumber),
    vendorId: u32(OFFSET.vendorId),
    attributes: u32(OFFSET.attributes),
    remainingUpdates: u32(OFFSET.remainingUpdates),
    seamReady: view.getUint8(OFFSET.seamReady) === 1,
  };
}
