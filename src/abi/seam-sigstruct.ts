/**
 * SEAM_SIGSTRUCT: the signed statement that comes with a module image (published loader interface). The fields the
 * loader model looks at; key, exponent and signature stay zero, for nothing is signed here.
 */

/** Bytes of the structure. @public */
export const SEAM_SIGSTRUCT_SIZE = 2048;

/** @public */
export interface SeamSigstruct {
  /** Decimal YYYYMMDD. */
  readonly date: number;
  /** SHA-384 of the module's pages. */
  readonly seamHash: Uint8Array;
  readonly seamSvn: number;
  /** CPUs it runs on, as CPUID(1).EAX; empty for all. */
  readonly cpuidTable: readonly number[];
}

/** Header words and vendor that every module's statement has. */
const FIXED: readonly (readonly [offset: number, value: number])[] = [
  [0, 0x6], // header type: generic firmware
  [4, 0xe1], // header length in dwords
  [8, 0x1_0000], // header version 1.0
  [16, 0x8086], // vendor
  [24, SEAM_SIGSTRUCT_SIZE / 4],
  [28, 0x60], // key, modulus and exponent in dwords
  [32, 0x60],
  [36, 0x1],
];
const DATE_OFFSET = 20;
const HASH_OFFSET = 900;
const HASH_SIZE = 48;
const SVN_OFFSET = 948;
const CPUID_COUNT_OFFSET = 1024;
const CPUID_OFFSET = 1028;
const MAX_CPUID_TABLE = 255;

/** @public */
export function encodeSeamSigstruct(sigstruct: SeamSigstruct): Uint8Array {
  const bytes = new Uint8Array(SEAM_SIGSTRUCT_SIZE);
  const view = new DataView(bytes.buffer);
  for (const [offset, value] of FIXED) view.setUint32(offset, value, true);
  view.setUint32(DATE_OFFSET, sigstruct.date, true);
  bytes.set(sigstruct.seamHash, HASH_OFFSET);
  view.setUint16(SVN_OFFSET, sigstruct.seamSvn, true);
  view.setUint32(CPUID_COUNT_OFFSET, sigstruct.cpuidTable.length, true);
  sigstruct.cpuidTable.forEach((fms, i) => {
    view.setUint32(CPUID_OFFSET + 4 * i, fms, true);
  });
  return bytes;
}

/** Takes the structure apart; undefined where a header word is not as it must be. @public */
export function decodeSeamSigstruct(bytes: Uint8Array): SeamSigstruct | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, SEAM_SIGSTRUCT_SIZE);
  const cpus = view.getUint32(CPUID_COUNT_OFFSET, true);
  const malformed = FIXED.some(([offset, value]) => view.getUint32(offset, true) !== value);
  if (malformed || cpus > MAX_CPUID_TABLE) return undefined;
  return {
    date: view.getUint32(DATE_OFFSET, true),
    seamHash: bytes.slice(HASH_OFFSET, HASH_OFFSET + HASH_SIZE),
    seamSvn: view.getUint16(SVN_OFFSET, true),
    cpuidTable: Array.from({ length: cpus }, (_, i) => view.getUint32(CPUID_OFFSET + 4 * i, true)),
  };
}
