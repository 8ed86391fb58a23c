import { createHash } from 'node:crypto';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EXTEND_CHUNK, MEASUREMENT_BYTES, TdMeasurement } from '../../../src/module/td/measurement.ts';

/** 128 bytes: a name, and a GPA at byte 16. */
function block(name: string, gpa: number): Uint8Array {
  const bytes = Buffer.alloc(128);
  bytes.write(name, 'ascii');
  bytes.writeBigUInt64LE(BigInt(gpa), 16);
  return bytes;
}

const gpa = fc.integer({ min: 0, max: 2 ** 36 - 1 }).map((pfn) => pfn * 4096);
const chunk = fc.uint8Array({ minLength: EXTEND_CHUNK, maxLength: EXTEND_CHUNK });
const step = fc.record({ gpa, chunk: fc.option(chunk, { nil: undefined }) });

function apply(measurement: TdMeasurement, steps: readonly { gpa: number; chunk: Uint8Array | undefined }[]) {
  for (const { gpa: address, chunk: bytes } of steps) {
    if (bytes === undefined) measurement.addPage(address);
    else measurement.extend(address, bytes);
  }
}

describe('TdMeasurement', () => {
  it('of nothing is the SHA-384 of nothing', () => {
    expect(Buffer.from(new TdMeasurement().finalize()).toString('hex')).toBe(
      '38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b',
    );
  });

  it('hashes a block for every page and a block with its chunk for every extension', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        const measurement = new TdMeasurement();
        apply(measurement, steps);
        const expected = createHash('sha384');
        for (const { gpa: address, chunk: bytes } of steps) {
          expected.update(block(bytes === undefined ? 'MEM.PAGE.ADD' : 'MR.EXTEND', address));
          if (bytes !== undefined) expected.update(bytes);
        }
        const digest = measurement.finalize();
        expect(digest.length).toBe(MEASUREMENT_BYTES);
        expect(Buffer.from(digest)).toEqual(expected.digest());
      }),
    );
  });

  it('goes on where another one stopped', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), fc.array(step, { maxLength: 12 }), (before, after) => {
        const whole = new TdMeasurement();
        apply(whole, [...before, ...after]);
        const first = new TdMeasurement();
        apply(first, before);
        const second = new TdMeasurement();
        second.restore(first.message);
        apply(second, after);
        expect(second.finalize()).toEqual(whole.finalize());
      }),
    );
  });
});
