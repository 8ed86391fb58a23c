import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CACHE_LINE, MIB, PAGE_4K } from '../../src/abi/address.ts';
import { MachineCheck } from '../../src/machine/exceptions.ts';
import { PhysicalMemory } from '../../src/machine/memory.ts';

const TD = 40;
const OTHER_TD = 41;
const MKTME = 3;

function memory(partialWriteErratum = false): PhysicalMemory {
  return new PhysicalMemory({
    present: (address) => address < 64 * MIB,
    isPrivateKeyId: (keyId) => keyId >= 32,
    partialWriteErratum,
  });
}

describe('physical memory', () => {
  it('reads zero where nobody wrote, and ones where no memory is', () => {
    const m = memory();
    expect(m.read(0x1000, 4, 0)).toEqual(new Uint8Array(4));
    expect(m.read(64 * MIB, 2, 0)).toEqual(Uint8Array.of(0xff, 0xff));
    m.write(64 * MIB, Uint8Array.of(1), 0);
    expect(m.framesInUse).toBe(0);
  });

  it('gives a private line back to its key alone', () => {
    const m = memory();
    m.claim(0x2000, 0x3000, TD);
    m.write(0x2000, Uint8Array.of(1, 2, 3), TD);
    expect(m.read(0x2000, 3, TD)).toEqual(Uint8Array.of(1, 2, 3));
    expect(m.read(0x2000, 3, 0)).toEqual(new Uint8Array(3));
    expect(() => m.read(0x2000, 3, OTHER_TD)).toThrow(MachineCheck);
  });

  it('lets the owner work on a page in place, and nobody else', () => {
    const m = memory();
    m.claim(0x2000, 0x3000, TD);
    m.frames.words32[m.frameOf(2, TD) / 4] = 0x0403_0201;
    expect(m.read(0x2000, 4, TD)).toEqual(Uint8Array.of(1, 2, 3, 4));
    expect(() => m.frameOf(2, OTHER_TD)).toThrow(MachineCheck);
    expect(() => m.frameOf((64 * MIB) / 0x1000, 0)).toThrow(MachineCheck);
  });

  it('shows noise under the wrong shared key', () => {
    const m = memory();
    m.write(0x2000, new Uint8Array(CACHE_LINE).fill(7), MKTME);
    expect(m.read(0x2000, CACHE_LINE, MKTME)).toEqual(new Uint8Array(CACHE_LINE).fill(7));
    const seen = m.read(0x2000, CACHE_LINE, 0);
    expect(seen.some((byte) => byte !== 7)).toBe(true);
    expect(m.read(0x2000, CACHE_LINE, 0)).toEqual(seen);
  });

  it('raises #MC for the TD after the host wrote one of its lines, and only in that line', () => {
    const m = memory();
    m.claim(0x2000, 0x3000, TD);
    m.write(0x2040, Uint8Array.of(9), 0);
    expect(m.read(0x2000, CACHE_LINE, TD)).toEqual(new Uint8Array(CACHE_LINE));
    expect(() => m.read(0x2040, 1, TD)).toThrow(MachineCheck);
    expect(m.read(0x2040, 1, 0)).toEqual(Uint8Array.of(9));
  });

  it('poisons for everybody on a partial write with the erratum, until MOVDIR64B', () => {
    const m = memory(true);
    m.claim(0x2000, 0x3000, TD);
    m.write(0x2000, Uint8Array.of(9), 0);
    expect(m.isPoisoned(0x2000)).toBe(true);
    expect(() => m.read(0x2000, 1, 0)).toThrow(MachineCheck);
    m.write(0x2000, new Uint8Array(CACHE_LINE), 0);
    expect(() => m.read(0x2000, 1, 0)).toThrow(MachineCheck);
    m.write(0x2000, new Uint8Array(CACHE_LINE), 0, 'direct');
    expect(m.read(0x2000, 1, 0)).toEqual(Uint8Array.of(0));
  });

  it('gives memory of keys back zeroed and free of poison, and leaves the rest alone', () => {
    const m = memory(true);
    m.claim(0x2000, 0x3000, TD);
    m.write(0x2000, Uint8Array.of(9), 0);
    m.write(0x3000, new Uint8Array(PAGE_4K).fill(7), 0);
    m.write(0x3040, new Uint8Array(CACHE_LINE).fill(8), TD);
    m.write(0x4000, new Uint8Array(PAGE_4K).fill(7), 0);
    m.write(0x5000, new Uint8Array(PAGE_4K).fill(7), OTHER_TD);
    m.disown((keyId) => keyId === TD);
    expect(m.isPoisoned(0x2000)).toBe(false);
    expect([0x2000, 0x3040, 0x4000, 0x5000].map((address) => m.ownerAt(address))).toEqual([
      0,
      0,
      0,
      OTHER_TD,
    ]);
    expect([0x2000, 0x3040, 0x4000].map((address) => m.read(address, 1, 0)[0])).toEqual([0, 0, 7]);
  });

  it('does not poison on whole-line writes, erratum or not', () => {
    const m = memory(true);
    m.claim(0x2000, 0x3000, TD);
    m.write(0x2000, new Uint8Array(CACHE_LINE).fill(5), 0);
    expect(m.isPoisoned(0x2000)).toBe(false);
    expect(m.read(0x2000, 1, 0)).toEqual(Uint8Array.of(5));
  });

  it('agrees with a byte-by-byte model on random shared and private accesses', () => {
    const access = fc.record({
      write: fc.boolean(),
      at: fc.integer({ min: 0, max: 4 * PAGE_4K - 1 }),
      length: fc.integer({ min: 1, max: PAGE_4K }),
      key: fc.constantFrom(0, MKTME, TD, OTHER_TD),
      value: fc.integer({ min: 1, max: 255 }),
    });
    fc.assert(
      fc.property(fc.array(access, { maxLength: 30 }), (accesses) => {
        const m = memory();
        const bytes = new Uint8Array(5 * PAGE_4K);
        const owners = new Uint16Array((5 * PAGE_4K) / CACHE_LINE);
        for (const { write, at, length, key, value } of accesses) {
          const lines: number[] = [];
          for (let line = Math.floor(at / CACHE_LINE); line * CACHE_LINE < at + length; line++)
            lines.push(line);
          const whole = (line: number): boolean =>
            at <= line * CACHE_LINE && at + length >= (line + 1) * CACHE_LINE;
          if (write) {
            const refused = lines.some((l) => key >= 32 && owners[l] !== key && owners[l] !== 0 && !whole(l));
            // A refused store stops part-way, so a run that hits one is not followed further.
            if (refused) {
              expect(() => m.write(at, new Uint8Array(length).fill(value), key)).toThrow(MachineCheck);
              return;
            }
            m.write(at, new Uint8Array(length).fill(value), key);
            bytes.fill(value, at, at + length);
            for (const line of lines) owners[line] = key;
            continue;
          }
          if (key >= 32 && lines.some((line) => owners[line] !== key)) {
            expect(() => m.read(at, length, key)).toThrow(MachineCheck);
            continue;
          }
          const seen = m.read(at, length, key);
          for (let i = 0; i < length; i++) {
            const owner = owners[Math.floor((at + i) / CACHE_LINE)]!;
            if (owner === key) expect(seen[i]).toBe(bytes[at + i]);
            else if (owner >= 32) expect(seen[i]).toBe(0);
          }
        }
      }),
      { numRuns: 200 },
    );
  });
});
