import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../src/abi/address.ts';
import { MachineCheck } from '../../src/machine/exceptions.ts';
import { PhysicalMemory } from '../../src/machine/memory.ts';

const PRIVATE = 40;
const OTHER = 41;
/** Beyond 32 bits, where numbers are no longer integers to the engine. */
const FROM = 0x12_3456_7000;
const TO = 0x23_4567_8000;

function memory(): PhysicalMemory {
  return new PhysicalMemory({
    present: (address) => address < 2 ** 46,
    isPrivateKeyId: (keyId) => keyId >= 32,
    partialWriteErratum: true,
  });
}

const contents = fc.uint8Array({ minLength: PAGE_4K, maxLength: PAGE_4K });

describe('copyPage', () => {
  it.each([0, 1, PRIVATE])('copies what KeyID %i reads, for the new owner alone', (reader) => {
    fc.assert(
      fc.property(contents, (bytes) => {
        const m = memory();
        m.write(FROM, bytes, 0);
        m.write(
          TO,
          bytes.map((byte) => byte ^ 0xff),
          OTHER,
        );
        if (reader === PRIVATE) m.write(FROM, bytes, PRIVATE);
        const seen = m.read(FROM, PAGE_4K, reader);
        m.copyPage(FROM, reader, TO, PRIVATE);
        expect(m.read(TO, PAGE_4K, PRIVATE)).toEqual(seen);
        expect([m.ownerAt(TO), m.ownerAt(TO + PAGE_4K - 1)]).toEqual([PRIVATE, PRIVATE]);
        expect(() => m.read(TO, 1, OTHER)).toThrow(MachineCheck);
      }),
      { numRuns: 10 },
    );
  });

  it('heals poison and takes over single lines', () => {
    const m = memory();
    m.write(TO, new Uint8Array(PAGE_4K), OTHER);
    m.write(TO + 8, Uint8Array.of(1), 0);
    expect(m.isPoisoned(TO)).toBe(true);
    m.copyPage(FROM, 0, TO, PRIVATE);
    expect(m.isPoisoned(TO)).toBe(false);
    expect(m.read(TO, PAGE_4K, PRIVATE)).toEqual(new Uint8Array(PAGE_4K));
  });

  it('leaves the page alone when the source cannot be read', () => {
    const m = memory();
    m.write(FROM, new Uint8Array(64), OTHER);
    m.write(TO, Uint8Array.of(7), 0);
    expect(() => m.copyPage(FROM, PRIVATE, TO, PRIVATE)).toThrow(MachineCheck);
    expect([m.read(TO, 1, 0)[0], m.ownerAt(TO)]).toEqual([7, 0]);
  });

  it('copies a page over itself for another key', () => {
    const m = memory();
    m.write(FROM, Uint8Array.of(1, 2, 3), 0);
    m.copyPage(FROM, 0, FROM, PRIVATE);
    expect([...m.read(FROM, 4, PRIVATE)]).toEqual([1, 2, 3, 0]);
  });

  it('stores nothing where no memory answers', () => {
    const m = memory();
    m.copyPage(FROM, 0, 2 ** 46, PRIVATE);
    expect(m.framesInUse).toBe(0);
  });
});

describe('readToFrame', () => {
  it('gives what read gives', () => {
    const offset = fc.integer({ min: 0, max: PAGE_4K - 256 });
    fc.assert(
      fc.property(offset, fc.integer({ min: 1, max: 256 }), fc.constantFrom(0, 1), (at, length, reader) => {
        const m = memory();
        m.write(
          FROM,
          Uint8Array.from({ length: PAGE_4K }, (_, i) => i & 0xff),
          0,
        );
        const frame = m.frames.allocate();
        m.readToFrame(FROM + at, length, reader, frame);
        expect(m.frames.bytes.slice(frame, frame + length)).toEqual(m.read(FROM + at, length, reader));
      }),
    );
  });
});

describe('isIntact', () => {
  it('is false for another owner and for poison, line by line', () => {
    const m = memory();
    m.claim(FROM, FROM + PAGE_4K, PRIVATE);
    expect([m.isIntact(FROM, PRIVATE), m.isIntact(FROM, OTHER), m.isIntact(TO, PRIVATE)]).toEqual([
      true,
      false,
      false,
    ]);
    m.write(FROM, new Uint8Array(64), 0);
    m.write(FROM + 64, Uint8Array.of(1), 0);
    m.write(FROM + 128, new Uint8Array(64), PRIVATE);
    const intact = [0, 64, 128, 192].map((line) => m.isIntact(FROM + line, PRIVATE));
    expect(intact).toEqual([false, false, true, true]);
  });

  it('is false for a poisoned line that has its owner back', () => {
    const m = memory();
    m.write(FROM, new Uint8Array(PAGE_4K), PRIVATE);
    m.write(FROM, Uint8Array.of(1), 0);
    m.write(FROM, new Uint8Array(64), PRIVATE);
    expect([m.ownerAt(FROM), m.isIntact(FROM, PRIVATE)]).toEqual([PRIVATE, false]);
  });
});
