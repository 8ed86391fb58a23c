/**
 * What MRTD is the hash of (module facts 8): for every page added a record, for every 256 bytes extended a record and
 * the bytes. A record begins with its name, then comes the guest physical address; the rest is zero.
 */

/** Bytes of a measurement register: SHA-384. @public */
export const MEASUREMENT_BYTES = 48;
/** Bytes that one MR.EXTEND measures. @public */
export const EXTEND_CHUNK = 256;
/** Bytes of a record. @public */
export const MEASUREMENT_RECORD_BYTES = 128;

const GPA_OFFSET = 16;
const TWO_32 = 0x1_0000_0000;

/** The words of a record that is of address 0. */
function recordWords(name: string): readonly number[] {
  const bytes = new Uint8Array(MEASUREMENT_RECORD_BYTES);
  bytes.set(new TextEncoder().encode(name));
  return [...new Uint32Array(bytes.buffer)];
}

/** The two records, by what they are of. @public */
export const MEASUREMENT_RECORD = {
  pageAdd: recordWords('MEM.PAGE.ADD'),
  extend: recordWords('MR.EXTEND'),
} as const;

/** Writes a record of the page or bytes at `gpa` from byte `at` of `words`. @public */
export function putMeasurementRecord(
  words: Uint32Array,
  at: number,
  record: readonly number[],
  gpa: number,
): void {
  const word = at / 4;
  for (let i = 0; i < record.length; i++) words[word + i] = record[i]!;
  words[word + GPA_OFFSET / 4] = gpa;
  words[word + GPA_OFFSET / 4 + 1] = gpa / TWO_32;
}
