import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_4K } from '../../../src/abi/address.ts';
import { InputError } from '../../../src/abi/input-error.ts';
import { layOutMemory } from '../../../src/vmm/vm/memory-layout.ts';

const FIRMWARE = 0xffe0_0000;

describe('layOutMemory', () => {
  it('puts RAM below the hole for devices, firmware right below 4 GiB and the rest above', () => {
    expect(layOutMemory(128 * MIB)).toEqual([{ start: 0, end: 128 * MIB, name: 'low RAM' }]);
    expect(layOutMemory(8 * GIB, FIRMWARE)).toEqual([
      { start: 0, end: 2 * GIB, name: 'low RAM' },
      { start: FIRMWARE, end: 4 * GIB, name: 'firmware' },
      { start: 4 * GIB, end: 10 * GIB, name: 'high RAM' },
    ]);
  });

  it('gives as much RAM as was asked for, ascending and without overlap', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 24 }), fc.boolean(), (pages, hasFirmware) => {
        const ranges = layOutMemory(pages * PAGE_4K, hasFirmware ? FIRMWARE : null);
        const ram = ranges.filter(({ name }) => name !== 'firmware');
        expect(ram.reduce((sum, { start, end }) => sum + end - start, 0)).toBe(pages * PAGE_4K);
        for (const [i, { start }] of ranges.entries()) {
          expect(start).toBeGreaterThanOrEqual(i === 0 ? 0 : ranges[i - 1]!.end);
        }
      }),
    );
  });

  it('refuses firmware that would lie elsewhere, and sizes that are no pages', () => {
    expect(() => layOutMemory(MIB, 4 * GIB)).toThrow(InputError);
    expect(() => layOutMemory(MIB, 0xfee0_0000)).toThrow(/between 0xfee01000 and 4 GiB/);
    expect(() => layOutMemory(0)).toThrow(InputError);
    expect(() => layOutMemory(4097)).toThrow(InputError);
  });
});
