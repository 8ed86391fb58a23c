import { createHash } from 'node:crypto';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { EXTEND_CHUNK, MEASUREMENT_BYTES } from '../../../src/abi/measurement.ts';
import { MachineCheck } from '../../../src/machine/exceptions.ts';
import { PhysicalMemory } from '../../../src/machine/memory.ts';
import { TdMeasurement } from '../../../src/module/td/measurement.ts';

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

const CHUNK_AT = 0x1_0000_0100;
const KEYID = 40;

function newMeasurement(): { readonly memory: PhysicalMemory; readonly measurement: TdMeasurement } {
  const memory = new PhysicalMemory({
    present: () => true,
    isPrivateKeyId: (keyId) => keyId >= 32,
    partialWriteErratum: false,
  });
  // Frames that were in use before hold anything.
  const used = Array.from({ length: 4 }, () => memory.frames.allocate());
  for (const frame of used) {
    memory.frames.bytes.fill(0xff, frame, frame + PAGE_4K);
    memory.frames.release(frame);
  }
  return { memory, measurement: new TdMeasurement(memory) };
}

function apply(
  { memory, measurement }: ReturnType<typeof newMeasurement>,
  steps: readonly { gpa: number; chunk: Uint8Array | undefined }[],
) {
  for (const { gpa: address, chunk: bytes } of steps) {
    if (bytes === undefined) measurement.addPage(address);
    else {
      memory.write(CHUNK_AT, bytes, KEYID);
      measurement.extend(address, CHUNK_AT, KEYID);
    }
  }
}

describe('TdMeasurement', () => {
  it('of nothing is the SHA-384 of nothing', () => {
    expect(Buffer.from(newMeasurement().measurement.digest()).toString('hex')).toBe(
      '38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b',
    );
  });

  it('hashes a block for every page and a block with its chunk for every extension', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        const made = newMeasurement();
        apply(made, steps);
        const expected = createHash('sha384');
        for (const { gpa: address, chunk: bytes } of steps) {
          expected.update(block(bytes === undefined ? 'MEM.PAGE.ADD' : 'MR.EXTEND', address));
          if (bytes !== undefined) expected.update(bytes);
        }
        const digest = made.measurement.digest();
        expect(digest.length).toBe(MEASUREMENT_BYTES);
        expect(Buffer.from(digest)).toEqual(expected.digest());
      }),
    );
  });

  it('goes on where another one stopped', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), fc.array(step, { maxLength: 12 }), (before, after) => {
        const whole = newMeasurement();
        apply(whole, [...before, ...after]);
        const first = newMeasurement();
        apply(first, before);
        const second = newMeasurement();
        second.measurement.restore(first.measurement.message);
        apply(second, after);
        expect(second.measurement.digest()).toEqual(whole.measurement.digest());
      }),
    );
  });

  it('measures nothing of a chunk that cannot be read', () => {
    const { memory, measurement } = newMeasurement();
    measurement.addPage(0x1000);
    memory.write(CHUNK_AT, new Uint8Array(EXTEND_CHUNK), KEYID + 1);
    const before = measurement.message;
    expect(() => measurement.extend(0x1000, CHUNK_AT, KEYID)).toThrow(MachineCheck);
    expect(measurement.message).toEqual(before);
  });

  it('gives its memory back', () => {
    const { memory, measurement } = newMeasurement();
    const next = memory.frames.allocate();
    memory.frames.release(next);
    measurement.addPage(0x1000);
    measurement.release();
    const frame = memory.frames.allocate();
    expect(frame).toBe(next);
    expect(memory.frames.bytes.subarray(frame, frame + 4096).every((byte) => byte === 0)).toBe(true);
  });
});
