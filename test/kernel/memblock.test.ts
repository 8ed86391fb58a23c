import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_4K } from '../../src/abi/address.ts';
import { type MemblockRegion, memblockFromFirmware } from '../../src/kernel/memblock.ts';
import { buildTdxMemlist } from '../../src/kernel/memlist.ts';
import type { E820Entry, E820Type, SratEntry } from '../../src/machine/description.ts';
import { TINY } from './tiny-machine.ts';

function srat(start: number, end: number, node: number): SratEntry {
  return { start, end, proximityDomain: node, node, hotplug: false, nonVolatile: false };
}

describe('memblockFromFirmware', () => {
  it('keeps usable memory, cut at node borders', () => {
    expect(memblockFromFirmware(TINY.e820, TINY.srat)).toEqual([
      { start: 0, end: 0x9f000, node: 0, kind: 'ram' },
      { start: MIB, end: 2 * GIB, node: 0, kind: 'ram' },
      { start: 2 * GIB + 64 * MIB, end: 3 * GIB - 128 * MIB, node: 0, kind: 'ram' },
      { start: 4 * GIB, end: 8 * GIB, node: 0, kind: 'ram' },
      { start: 8 * GIB, end: 12 * GIB, node: 1, kind: 'ram' },
    ]);
  });

  it('merges adjacent memory of one node and trims partial pages', () => {
    const e820: E820Entry[] = [
      { start: 0x1800, end: 0x5000, type: 'usable' },
      { start: 0x5000, end: 0x7fff, type: 'usable' },
    ];
    expect(memblockFromFirmware(e820, [])).toEqual([{ start: 0x2000, end: 0x7000, node: 0, kind: 'ram' }]);
  });

  it('lets the non-usable entry win where entries overlap', () => {
    const e820: E820Entry[] = [
      { start: 0, end: 8 * MIB, type: 'usable' },
      { start: 2 * MIB, end: 3 * MIB, type: 'reserved' },
    ];
    expect(memblockFromFirmware(e820, []).map(({ start, end }) => [start, end])).toEqual([
      [0, 2 * MIB],
      [3 * MIB, 8 * MIB],
    ]);
  });

  it('takes everything for node 0 when the SRAT leaves more than 1 MiB out', () => {
    const e820: E820Entry[] = [{ start: 0, end: GIB, type: 'usable' }];
    const whole = memblockFromFirmware(e820, [srat(0, 512 * MIB, 1), srat(512 * MIB, GIB - MIB, 2)]);
    expect(whole.map(({ node }) => node)).toEqual([1, 2, 0]);
    const less = [srat(0, 512 * MIB, 1), srat(512 * MIB, GIB - MIB - PAGE_4K, 2)];
    expect(memblockFromFirmware(e820, less).map(({ node }) => node)).toEqual([0]);
    expect(memblockFromFirmware(e820, [srat(0, 512 * MIB, 1)])).toEqual([
      { start: 0, end: GIB, node: 0, kind: 'ram' },
    ]);
  });

  it('holds exactly the usable pages, ascending and disjoint', () => {
    const types: E820Type[] = ['usable', 'reserved', 'acpi-data'];
    const entry = fc.record({
      start: fc.nat(200),
      size: fc.integer({ min: 1, max: 60 }),
      type: fc.constantFrom(...types),
    });
    fc.assert(
      fc.property(
        fc.array(entry, { maxLength: 20, size: 'max' }),
        fc.array(fc.nat(200), { maxLength: 4 }),
        (raw, cuts) => {
          const e820 = raw.map(({ start, size, type }) => ({
            start: start * PAGE_4K,
            end: (start + size) * PAGE_4K,
            type,
          }));
          const borders = [0, ...[...new Set(cuts)].sort((a, b) => a - b), 1000];
          const nodes = borders
            .slice(1)
            .map((end, i) => srat(borders[i]! * PAGE_4K, end * PAGE_4K, i))
            .filter((s) => s.start < s.end);
          const regions = memblockFromFirmware(e820, nodes);
          for (let page = 0; page < 270; page++) {
            const covering = raw.filter(({ start, size }) => start <= page && page < start + size);
            const usable = covering.length > 0 && covering.every(({ type }) => type === 'usable');
            const holding = regions.filter(
              ({ start, end }) => start <= page * PAGE_4K && page * PAGE_4K < end,
            );
            expect(holding.length).toBe(usable ? 1 : 0);
            const node = nodes.find(
              ({ start, end }) => start <= page * PAGE_4K && page * PAGE_4K < end,
            )!.node;
            if (usable) expect(holding[0]!.node).toBe(node);
          }
          for (const [i, next] of regions.slice(1).entries()) {
            expect(next.start).toBeGreaterThanOrEqual(regions[i]!.end);
          }
        },
      ),
    );
  });
});

const NO_FIRMWARE = { cmrs: [], srat: [] };

function bootRam(memblock: readonly MemblockRegion[]) {
  return buildTdxMemlist({ memblock, ...NO_FIRMWARE }, { tdxMemory: 'boot-ram', tdxNodes: [] });
}

describe('buildTdxMemlist', () => {
  it('starts at 1 MiB', () => {
    const memlist = bootRam(memblockFromFirmware(TINY.e820, TINY.srat));
    expect(memlist[0]).toEqual({ startPfn: MIB / PAGE_4K, endPfn: (2 * GIB) / PAGE_4K, node: 0 });
    expect(memlist).toHaveLength(4);
    const low: E820Entry[] = [{ start: 0, end: 2 * MIB, type: 'usable' }];
    expect(bootRam(memblockFromFirmware(low, []))[0]!.startPfn).toBe(256);
  });

  it('counts legacy persistent memory only when told so, and other persistent memory never', () => {
    const e820: E820Entry[] = [
      { start: MIB, end: GIB, type: 'usable' },
      { start: 4 * GIB, end: 6 * GIB, type: 'legacy-pmem' },
      { start: 8 * GIB, end: 9 * GIB, type: 'pmem' },
    ];
    const memblock = memblockFromFirmware(e820, []);
    expect(bootRam(memblock)).toHaveLength(1);
    const withPmem = buildTdxMemlist(
      { memblock, ...NO_FIRMWARE },
      { tdxMemory: 'boot-ram-and-pmem', tdxNodes: [] },
    );
    expect(withPmem.map(({ startPfn }) => startPfn * PAGE_4K)).toEqual([MIB, 4 * GIB]);
  });

  it('holds whole CMRs, there or not, each part on the node that the SRAT says', () => {
    const cmrs = [
      { start: 0, end: GIB },
      { start: 3 * GIB, end: 8 * GIB },
    ];
    const srat = [
      { start: 0, end: 4 * GIB, node: 0, proximityDomain: 0, hotplug: false, nonVolatile: false },
      { start: 4 * GIB, end: 16 * GIB, node: 1, proximityDomain: 1, hotplug: true, nonVolatile: false },
    ];
    const memlist = buildTdxMemlist({ memblock: [], cmrs, srat }, { tdxMemory: 'cmr', tdxNodes: [] });
    expect(memlist.map(({ startPfn, endPfn, node }) => [startPfn * PAGE_4K, endPfn * PAGE_4K, node])).toEqual(
      [
        [MIB, GIB, 0],
        [3 * GIB, 4 * GIB, 0],
        [4 * GIB, 8 * GIB, 1],
      ],
    );
  });

  it('holds the memory of chosen nodes only', () => {
    const memblock = memblockFromFirmware(TINY.e820, TINY.srat);
    for (const node of [0, 1]) {
      const memlist = buildTdxMemlist({ memblock, ...NO_FIRMWARE }, { tdxMemory: 'nodes', tdxNodes: [node] });
      expect(new Set(memlist.map((block) => block.node))).toEqual(new Set([node]));
    }
  });
});
