import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AddressRange, GIB, MIB, overlaps, PAGE_4K } from '../../src/abi/address.ts';
import { KernelError } from '../../src/abi/errno.ts';
import { PageAllocator } from '../../src/kernel/allocator.ts';
import type { TdxMemoryBlock } from '../../src/kernel/memlist.ts';
import { pamtBytes, tdmrPamtSizes } from '../../src/kernel/pamt-alloc.ts';
import { holesIn, neededReservedAreas, reservedAreas } from '../../src/kernel/reserved-areas.ts';
import { constructTdmrs, fillOutTdmrs, type TdmrInputs, type TdmrLimits } from '../../src/kernel/tdmr.ts';

const LIMITS: TdmrLimits = {
  maxTdmrs: 64,
  maxReservedPerTdmr: 16,
  pamt4kEntrySize: 16,
  pamt2mEntrySize: 16,
  pamt1gEntrySize: 16,
};

function blocks(...ranges: [start: number, end: number, node?: number][]): TdxMemoryBlock[] {
  return ranges.map(([start, end, node = 0]) => ({ startPfn: start / PAGE_4K, endPfn: end / PAGE_4K, node }));
}

function construct(memlist: TdxMemoryBlock[], options: Partial<TdmrInputs> = {}) {
  const allocator = new PageAllocator(
    memlist.map(({ startPfn, endPfn, node }) => ({
      start: startPfn * PAGE_4K,
      end: endPfn * PAGE_4K,
      node,
      kind: 'ram',
    })),
  );
  const warnings: string[] = [];
  const inputs: TdmrInputs = {
    memlist,
    cmrs: [],
    limits: LIMITS,
    holes: 'memblock',
    dynamicPamt: false,
    allocator,
    warn: (_, code) => warnings.push(code),
    ...options,
  };
  return { allocator, warnings, run: () => constructTdmrs(inputs) };
}

function refusal(run: () => unknown): KernelError {
  try {
    run();
  } catch (error) {
    if (error instanceof KernelError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('PAMT sizes', () => {
  it('are 4 MiB + 8 KiB + 4 KiB per GiB', () => {
    expect(tdmrPamtSizes(GIB, LIMITS, false)).toEqual({ bytes4k: 4 * MIB, bytes2m: 8192, bytes1g: 4096 });
  });

  it('shrink to a bitmap with Dynamic PAMT', () => {
    expect(tdmrPamtSizes(GIB, LIMITS, true).bytes4k).toBe(32768);
    expect(tdmrPamtSizes(GIB, { ...LIMITS, pamtPageBitmapEntryBits: 2 }, true).bytes4k).toBe(65536);
  });

  // Totals that kernels of real hosts printed (256 GiB over two and four nodes).
  it.each([
    {
      totalKb: 1_050_636,
      memory: blocks([MIB, 0x7780_0000], [4 * GIB, 0x20_6e00_0000], [0x20_8000_0000, 0x40_7000_0000, 1]),
    },
    {
      totalKb: 1_050_644,
      memory: blocks(
        [MIB, 0x6f80_0000],
        [4 * GIB, 0x10_7a00_0000],
        [0x10_8000_0000, 0x20_7c00_0000, 1],
        [0x20_8000_0000, 0x30_7c00_0000, 2],
        [0x30_8000_0000, 0x40_7c00_0000, 3],
      ),
    },
  ])('add up to $totalKb KB', ({ totalKb, memory }) => {
    const tdmrs = construct(memory).run();
    expect(tdmrs.reduce((sum, { pamt }) => sum + pamtBytes(pamt), 0) / 1024).toBe(totalKb);
  });
});

describe('TDMR ranges', () => {
  const ranges = (memlist: TdxMemoryBlock[], max = 64) => fillOutTdmrs(memlist, max, () => {});

  it('round memory out to 1 GiB and skip what is covered', () => {
    expect(ranges(blocks([MIB, 100 * MIB], [200 * MIB, 900 * MIB], [950 * MIB, 3 * GIB - MIB]))).toEqual([
      { start: 0, end: GIB },
      { start: GIB, end: 3 * GIB },
    ]);
  });

  it('are not merged when they touch', () => {
    expect(ranges(blocks([4 * GIB, 8 * GIB], [8 * GIB, 12 * GIB, 1]))).toHaveLength(2);
  });

  it('warn when few are left and fail when none is', () => {
    const memlist = blocks([MIB, GIB], [2 * GIB, 3 * GIB], [4 * GIB, 5 * GIB]);
    const codes: string[] = [];
    fillOutTdmrs(memlist, 6, (text, code) => codes.push(`${code}: ${text}`));
    expect(codes).toEqual(['tdmrs-near-limit: consumed TDMRs reaching limit: 3 used out of 6']);
    expect(fillOutTdmrs(memlist, 7, () => expect.unreachable())).toHaveLength(3);
    const error = refusal(() => fillOutTdmrs(memlist, 2, () => {}));
    expect([error.errno, error.reason.code]).toEqual(['ENOSPC', 'tdmrs-exhausted']);
    expect(error.reason.data).toMatchObject({ limit: 2, range: { start: 4 * GIB, end: 5 * GIB } });
  });

  it('of no memory are one empty TDMR, whose PAMT then fails', () => {
    expect(ranges([])).toEqual([{ start: 0, end: 0 }]);
    expect(refusal(construct([]).run).errno).toBe('ENOMEM');
  });
});

describe('PAMT placement', () => {
  it('is on the node of the first memory in the TDMR', () => {
    const memlist = blocks(
      [4 * GIB, 6 * GIB + 512 * MIB],
      [6 * GIB + 512 * MIB, 9 * GIB, 1],
      [16 * GIB, 20 * GIB, 2],
    );
    expect(
      construct(memlist)
        .run()
        .map(({ node }) => node),
    ).toEqual([0, 1, 2]);
  });

  it('spills to another node when the own one is full', () => {
    const memlist = blocks([4 * GIB, 4 * GIB + MIB], [8 * GIB, 12 * GIB, 1]);
    const [first] = construct(memlist).run();
    expect([first!.node, first!.pamt.node]).toEqual([0, 1]);
    expect(first!.pamt.base).toBeGreaterThanOrEqual(8 * GIB);
  });

  it('fails with ENOMEM and the range, and keeps nothing', () => {
    const { allocator, run } = construct(blocks([4 * GIB, 6 * GIB], [8 * GIB, 12 * GIB, 1]));
    allocator.fault = (purpose, index) => purpose === 'pamt' && index === 1;
    const error = refusal(run);
    expect([error.errno, error.reason.code]).toEqual(['ENOMEM', 'pamt-allocation']);
    expect(error.reason.data).toMatchObject({ tdmr: { start: 8 * GIB, end: 12 * GIB }, node: 1 });
    expect(allocator.accounts().every(({ used }) => used === 0)).toBe(true);
  });
});

describe('reserved areas', () => {
  /** `count` gaps of one page, every 2 MiB from 1 GiB on. */
  const splintered = (count: number): TdxMemoryBlock[] => {
    const memlist: TdxMemoryBlock[] = [];
    let start = GIB;
    for (let i = 1; i <= count; i++) {
      memlist.push(...blocks([start, GIB + 2 * i * MIB]));
      start = GIB + 2 * i * MIB + PAGE_4K;
    }
    return [...memlist, ...blocks([start, 2 * GIB], [8 * GIB, 12 * GIB, 1])];
  };

  it('hold as many holes as the module allows', () => {
    const tdmrs = construct(splintered(16), { limits: LIMITS });
    // The PAMTs go to node 0 and take one more area there.
    expect(refusal(tdmrs.run).reason.data).toMatchObject({ needed: 17, limit: 16 });
    expect(construct(splintered(15)).run()[0]!.reservedAreas).toHaveLength(16);
  });

  it('exhausted fail with the TDMR, its holes and the limit, and keep no memory', () => {
    const { allocator, warnings, run } = construct(splintered(20));
    const error = refusal(run);
    expect([error.errno, error.number, error.reason.code]).toEqual([
      'ENOSPC',
      -28,
      'reserved-areas-exhausted',
    ]);
    const { tdmr, holes, limit } = error.reason.data as {
      tdmr: AddressRange;
      holes: AddressRange[];
      limit: number;
    };
    expect(tdmr).toEqual({ start: GIB, end: 2 * GIB });
    expect(limit).toBe(16);
    expect(holes).toHaveLength(20);
    expect(holes[0]).toEqual({ start: GIB + 2 * MIB, end: GIB + 2 * MIB + PAGE_4K });
    expect(warnings).toContain('reserved-areas-exhausted');
    expect(allocator.accounts().every(({ used }) => used === 0)).toBe(true);
  });

  it('are fewer when holes come from CMRs', () => {
    const cmrs = [
      { start: GIB, end: 2 * GIB },
      { start: 8 * GIB, end: 12 * GIB },
    ];
    const tdmrs = construct(splintered(20), { holes: 'cmr', cmrs }).run();
    expect(tdmrs[0]!.reservedAreas.map(({ why }) => why)).toEqual(['pamt']);
  });

  it('warn when a PAMT lies in a hole', () => {
    const tdmr = { start: 4 * GIB, end: 6 * GIB };
    const memory = [{ start: 4 * GIB, end: 5 * GIB }];
    const warningsFor = (pamtStart: number): readonly string[] => {
      const warnings: string[] = [];
      const pamt = { start: pamtStart, end: pamtStart + MIB };
      const areas = reservedAreas(tdmr, memory, [pamt], 16, (_, code) => warnings.push(code));
      expect(areas.map(({ why }) => why).toSorted()).toEqual(['hole', 'pamt']);
      return warnings;
    };
    expect(warningsFor(5 * GIB - MIB)).toEqual([]);
    expect(warningsFor(5 * GIB - PAGE_4K)).toEqual(['reserved-areas-overlap']);
    expect(warningsFor(5 * GIB)).toEqual(['reserved-areas-overlap']);
  });

  it('hold of a PAMT what lies in the TDMR', () => {
    const tdmr = { start: 4 * GIB, end: 6 * GIB };
    const pamts = [
      { start: 4 * GIB - MIB, end: 4 * GIB + MIB },
      { start: 5 * GIB, end: 5 * GIB + MIB },
      { start: 6 * GIB - MIB, end: 6 * GIB + MIB },
      { start: 6 * GIB, end: 6 * GIB + MIB },
    ];
    expect(neededReservedAreas(tdmr, [tdmr], pamts)).toEqual([
      { start: 4 * GIB, end: 4 * GIB + MIB, why: 'pamt' },
      { start: 5 * GIB, end: 5 * GIB + MIB, why: 'pamt' },
      { start: 6 * GIB - MIB, end: 6 * GIB, why: 'pamt' },
    ]);
  });

  it('cover exactly what is no TDX memory, and the PAMTs', () => {
    const gaps = fc.array(fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 0, max: 40 })), {
      minLength: 1,
      maxLength: 30,
      size: 'max',
    });
    fc.assert(
      fc.property(gaps, (pieces) => {
        const unit = 64 * MIB;
        let at = 4 * GIB;
        const memory: AddressRange[] = [];
        for (const [size, gap] of pieces) {
          memory.push({ start: at, end: at + size * unit });
          at += (size + gap) * unit;
        }
        for (const tdmr of fillOutTdmrs(
          blocks(...memory.map(({ start, end }): [number, number] => [start, end])),
          64,
          () => {},
        )) {
          const holes = holesIn(tdmr, memory);
          for (let probe = tdmr.start; probe < tdmr.end; probe += unit) {
            const page = { start: probe, end: probe + PAGE_4K };
            expect(holes.some((hole) => overlaps(hole, page))).toBe(
              !memory.some((range) => overlaps(range, page)),
            );
          }
          for (const hole of holes) {
            expect(hole.start).toBeLessThan(hole.end);
            expect(hole.start >= tdmr.start && hole.end <= tdmr.end).toBe(true);
          }
        }
      }),
    );
  });
});
