import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_4K } from '../../src/abi/address.ts';
import { InputError } from '../../src/abi/input-error.ts';
import { sampleImage } from '../../src/vmm/sample-image.ts';
import { buildTdHob, describeMemory, q35Memory } from '../../src/vmm/td-hob.ts';
import { layOutTd } from '../../src/vmm/td-layout.ts';
import { imageWith, type SectionFields } from './arbitrary-image.ts';

const SAMPLE = sampleImage();
const TD_HOB = 3;

/** A HOB as firmware reads it. */
interface Hob {
  readonly type: number;
  readonly length: number;
  readonly view: DataView;
}

/** Walks a list as edk2 does, which wants reserved fields zero and ends at the end HOB. */
function walk(list: Uint8Array): Hob[] {
  const hobs: Hob[] = [];
  for (let at = 0; ; ) {
    const view = new DataView(list.buffer, list.byteOffset + at);
    const [type, length, reserved] = [
      view.getUint16(0, true),
      view.getUint16(2, true),
      view.getUint32(4, true),
    ];
    expect(reserved).toBe(0);
    expect(length).toBeGreaterThan(0);
    hobs.push({ type, length, view });
    at += length;
    if (type !== 0xffff) continue;
    expect(at).toBe(list.length);
    return hobs;
  }
}

describe('q35Memory', () => {
  it.each([
    [512 * MIB, [[0, 512 * MIB]]],
    [2 * GIB, [[0, 2 * GIB]]],
    [0xb000_0000 - PAGE_4K, [[0, 0xb000_0000 - PAGE_4K]]],
    [
      0xb000_0000,
      [
        [0, 2 * GIB],
        [4 * GIB, 4 * GIB + 0x3000_0000],
      ],
    ],
    [
      64 * GIB,
      [
        [0, 2 * GIB],
        [4 * GIB, 66 * GIB],
      ],
    ],
  ])('puts %i bytes', (bytes, ranges) => {
    expect(q35Memory(bytes).map(({ start, end }) => [start, end])).toEqual(ranges);
  });

  it.each([0, -4096, 1, 4097, 0.5])('refuses %d bytes', (bytes) => {
    expect(() => q35Memory(bytes)).toThrow(InputError);
  });
});

describe('describeMemory', () => {
  it('covers the memory once, ascending, and tells what was added', () => {
    fc.assert(
      fc.property(fc.integer({ min: 64, max: 2 ** 24 }), (pages) => {
        const memory = q35Memory(64 * MIB + pages * PAGE_4K);
        const described = describeMemory(SAMPLE, memory);
        for (const [i, { start, end }] of described.entries()) {
          expect(start).toBeLessThan(end);
          if (i > 0) expect(start).toBeGreaterThanOrEqual(described[i - 1]!.end);
        }
        const size = (ranges: readonly { start: number; end: number }[]): number =>
          ranges.reduce((sum, { start, end }) => sum + end - start, 0);
        expect(size(described)).toBe(size(memory));
        expect(described.filter(({ added }) => added).map(({ start, end }) => [start, end])).toEqual([
          [0x80_0000, 0x80_6000],
          [0x80_9000, 0x80_b000],
          [0x81_0000, 0x82_0000],
        ]);
      }),
    );
  });

  it('refuses memory that ends before or within a section', () => {
    const sentence =
      /^sample: section 2 \(TempMem\) at 0x810000 does not lie in the TD's memory; give the TD more$/;
    expect(() => describeMemory(SAMPLE, q35Memory(0x81_0000))).toThrow(sentence);
    expect(() => describeMemory(SAMPLE, q35Memory(0x81_1000))).toThrow(sentence);
  });

  it('refuses memory that ends within the firmware', () => {
    const memory = [{ start: 0, end: 0xffff_8000 }];
    expect(() => describeMemory(SAMPLE, memory)).toThrow(/section 0 \(BFV\) at 0xffff4000/);
  });
});

describe('buildTdHob', () => {
  it('makes the list that firmware accepts', () => {
    const memory = q35Memory(8 * GIB);
    const list = buildTdHob(SAMPLE, memory);
    const [handoff, ...rest] = walk(list);
    expect(handoff).toMatchObject({ type: 1, length: 56 });
    expect(handoff!.view.getUint32(8, true)).toBe(9);
    expect(Number(handoff!.view.getBigUint64(48, true))).toBe(0x80_9000 + list.length);
    const resources = rest.slice(0, -1).map(({ type, length, view }) => {
      expect([type, length]).toEqual([3, 48]);
      expect(view.getUint32(28, true)).toBe(7);
      const start = Number(view.getBigUint64(32, true));
      return {
        start,
        end: start + Number(view.getBigUint64(40, true)),
        added: view.getUint32(24, true) === 0,
      };
    });
    expect(resources).toEqual(describeMemory(SAMPLE, memory));
  });

  it('has the length that OVMF was seen to take', () => {
    // OVMF's four sections in memory, two of them side by side: 8 ranges with what lies between.
    const workArea = { ...SAMPLE.sections[2]!, address: 0x80_b000, memoryBytes: 0x2000 };
    const ovmf = imageWith([...SAMPLE.sections.slice(0, 5), workArea]);
    expect(buildTdHob(ovmf, q35Memory(2 * GIB))).toHaveLength(448);
  });

  it('goes into its section, and to the vCPUs as address', () => {
    const hob = buildTdHob(SAMPLE, q35Memory(GIB));
    const { regions, hobAddress, augmented } = layOutTd(SAMPLE, { hob });
    expect(regions[TD_HOB]).toMatchObject({ gpa: 0x80_9000, pages: 2, source: hob, measure: false });
    expect(hobAddress).toBe(0x80_9000);
    expect(augmented).toEqual([{ start: 0x100_0000, end: 0x110_0000 }]);
  });

  it('refuses an image without the section, or with one too small', () => {
    const without = imageWith(SAMPLE.sections.filter(({ type }) => type !== 2));
    expect(() => buildTdHob(without, q35Memory(GIB))).toThrow(/there is no TD_HOB section/);
    const many: SectionFields[] = Array.from({ length: 50 }, (_, i) => ({
      ...SAMPLE.sections[2]!,
      address: 0x100_0000 + i * 0x2000,
      memoryBytes: 0x1000,
    }));
    const hob = { ...SAMPLE.sections[TD_HOB]!, memoryBytes: 0x1000 };
    expect(() => buildTdHob(imageWith([hob, ...many]), q35Memory(GIB))).toThrow(
      /4096 bytes, too few for a list of/,
    );
  });
});
