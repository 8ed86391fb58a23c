import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AddressRange, GIB, MIB, PAGE_4K } from '../../src/abi/address.ts';
import { withInfo } from '../../src/abi/status.ts';
import { STATUS } from '../../src/abi/status-codes.ts';
import type { TdmrInfo } from '../../src/abi/tdmr-info.ts';
import { checkTdmrs, pamtBytes, type TdmrCheckContext } from '../../src/module/tdmr-checks.ts';

const CONTEXT: TdmrCheckContext = {
  cmrs: [
    { start: 0, end: 3 * GIB },
    { start: 4 * GIB, end: 13 * GIB },
  ],
  keyIdStartBit: 46,
  maxPaBits: 52,
  dynamicPamt: false,
};

const GOOD: TdmrInfo = {
  base: 4 * GIB,
  size: 2 * GIB,
  pamt1gBase: 8 * GIB,
  pamt1gSize: PAGE_4K,
  pamt2mBase: 8 * GIB + MIB,
  pamt2mSize: 4 * PAGE_4K,
  pamt4kBase: 8 * GIB + 16 * MIB,
  pamt4kSize: 8 * MIB,
  reserved: [],
};

const check = (...infos: TdmrInfo<number | bigint>[]): bigint => checkTdmrs(infos, CONTEXT);

describe('checks of one TDMR', () => {
  it('accepts one that fits', () => {
    expect(check(GOOD)).toBe(0n);
    expect(
      check({
        ...GOOD,
        reserved: [
          { offset: 0, size: MIB },
          { offset: MIB, size: GIB },
        ],
      }),
    ).toBe(0n);
  });

  it.each([
    ['a base off 1 GiB', { base: 4 * GIB + MIB }, withInfo(STATUS.TDX_INVALID_TDMR, 0)],
    ['no size', { size: 0 }, withInfo(STATUS.TDX_INVALID_TDMR, 0)],
    ['a KeyID in the base', { base: BigInt(4 * GIB) | (1n << 46n) }, withInfo(STATUS.TDX_INVALID_TDMR, 0)],
    ['a size that wraps', { size: 0xffff_ffff_c000_0000n }, withInfo(STATUS.TDX_INVALID_TDMR, 0)],
    ['memory that is not convertible', { base: 3 * GIB }, withInfo(STATUS.TDX_TDMR_OUTSIDE_CMRS, 0)],
    ['a 1 GiB area off a page', { pamt1gBase: 8 * GIB + 1 }, withInfo(STATUS.TDX_INVALID_PAMT, 0, 2)],
    ['a small 2 MiB area', { pamt2mSize: 3 * PAGE_4K }, withInfo(STATUS.TDX_INVALID_PAMT, 0, 1)],
    ['a small 4 KiB area', { pamt4kSize: 8 * MIB - PAGE_4K }, withInfo(STATUS.TDX_INVALID_PAMT, 0, 0)],
    ['areas on each other', { pamt2mBase: 8 * GIB }, withInfo(STATUS.TDX_PAMT_OVERLAP, 0, 1, 0)],
    ['an area in usable memory', { pamt1gBase: 5 * GIB }, withInfo(STATUS.TDX_PAMT_OVERLAP, 0, 2, 0)],
    ['an area outside CMRs', { pamt4kBase: 3 * GIB }, withInfo(STATUS.TDX_PAMT_OUTSIDE_CMRS, 0, 0)],
    [
      'reserved areas out of order',
      {
        reserved: [
          { offset: MIB, size: MIB },
          { offset: 0, size: MIB },
        ],
      },
      withInfo(STATUS.TDX_NON_ORDERED_RESERVED_IN_TDMR, 0, 1),
    ],
    [
      'a reserved area after an empty one',
      {
        reserved: [
          { offset: 0, size: 0 },
          { offset: 0, size: MIB },
        ],
      },
      withInfo(STATUS.TDX_NON_ORDERED_RESERVED_IN_TDMR, 0, 0),
    ],
    [
      'a reserved area off a page',
      { reserved: [{ offset: 0, size: 100 }] },
      withInfo(STATUS.TDX_INVALID_RESERVED_IN_TDMR, 0, 0),
    ],
    [
      'a reserved area beyond the end',
      { reserved: [{ offset: 0, size: 3 * GIB }] },
      withInfo(STATUS.TDX_INVALID_RESERVED_IN_TDMR, 0, 0),
    ],
  ] as const)('refuses %s', (_, change, status) => {
    expect(check({ ...GOOD, ...change } as TdmrInfo<number | bigint>)).toBe(status);
  });

  it('looks at a wrap before the order', () => {
    const second = { ...GOOD, base: GIB, size: 0xffff_ffff_c000_0000n };
    expect(check(GOOD, second)).toBe(withInfo(STATUS.TDX_INVALID_TDMR, 1));
    expect(check(GOOD, { ...second, size: 0xffff_ffff_8000_0000n })).toBe(
      withInfo(STATUS.TDX_NON_ORDERED_TDMR, 1),
    );
  });

  it('lets an empty reserved area hold any offset', () => {
    expect(check({ ...GOOD, reserved: [{ offset: 0xffff_ffff_ffff_ffffn, size: 0n }] })).toBe(0n);
  });

  it('joins CMRs that touch', () => {
    const cmrs = [
      { start: 4 * GIB, end: 5 * GIB },
      { start: 5 * GIB, end: 13 * GIB },
    ];
    expect(checkTdmrs([GOOD], { ...CONTEXT, cmrs })).toBe(0n);
  });

  it('asks for one bit per page in place of 4 KiB entries with dynamic PAMT', () => {
    const small = { ...GOOD, pamt4kSize: 64 * 1024 };
    expect(checkTdmrs([small], { ...CONTEXT, dynamicPamt: true })).toBe(0n);
    expect(pamtBytes(2 * GIB, 0, true)).toBe(64 * 1024);
  });
});

describe('checks between TDMRs', () => {
  const second: TdmrInfo = {
    ...GOOD,
    base: 6 * GIB,
    size: GIB,
    pamt1gBase: 9 * GIB,
    pamt2mBase: 9 * GIB + MIB,
    pamt4kBase: 9 * GIB + 16 * MIB,
  };

  it('accepts two in order', () => {
    expect(check(GOOD, second)).toBe(0n);
  });

  it('refuses the wrong order and overlap with the number of the later one', () => {
    const status = withInfo(STATUS.TDX_NON_ORDERED_TDMR, 1);
    expect(check(second, GOOD)).toBe(status);
    expect(check(GOOD, { ...second, base: 5 * GIB })).toBe(status);
  });

  it('names both sides of a PAMT conflict', () => {
    expect(check(GOOD, { ...second, pamt4kBase: 8 * GIB + 16 * MIB })).toBe(
      withInfo(STATUS.TDX_PAMT_OVERLAP, 1, 0, 0),
    );
    expect(check(GOOD, { ...second, base: 8 * GIB })).toBe(withInfo(STATUS.TDX_PAMT_OVERLAP, 0, 0, 1));
  });
});

/** Everything in cells of 4 MiB, so that sets of cells can stand for ranges. */
const CELL = 4 * MIB;
const CELLS_PER_GIB = GIB / CELL;
const WORLD = 8 * CELLS_PER_GIB;
type Cells = ReadonlySet<number>;

function cells(range: AddressRange): Cells {
  const found = new Set<number>();
  for (let cell = range.start / CELL; cell < range.end / CELL; cell++) found.add(cell);
  return found;
}

/** The rules as sets: slow, and without the order in which a status is chosen. */
function isValid(infos: readonly TdmrInfo[], cmrs: readonly AddressRange[]): boolean {
  const convertible = new Set(cmrs.flatMap((cmr) => [...cells(cmr)]));
  const available: number[] = [];
  const pamt: number[] = [];
  let end = 0;
  for (const info of infos) {
    if (info.base < end) return false;
    end = info.base + info.size;
    const reserved = new Set<number>();
    let reservedEnd = 0;
    for (const { offset, size } of info.reserved) {
      if (offset < reservedEnd || offset + size > info.size) return false;
      reservedEnd = offset + size;
      for (const cell of cells({ start: info.base + offset, end: info.base + offset + size }))
        reserved.add(cell);
    }
    for (const cell of cells({ start: info.base, end })) if (!reserved.has(cell)) available.push(cell);
    for (const [base, size] of [
      [info.pamt1gBase, info.pamt1gSize],
      [info.pamt2mBase, info.pamt2mSize],
      [info.pamt4kBase, info.pamt4kSize],
    ] as const) {
      pamt.push(...cells({ start: base, end: base + size }));
    }
    if (info.pamt4kSize < (info.size / GIB) * 4 * MIB) return false;
  }
  const all = [...available, ...pamt];
  return new Set(all).size === all.length && all.every((cell) => convertible.has(cell));
}

const cell = fc.integer({ min: 0, max: WORLD - 1 });
/** Mostly in the upper half of the world, where TDMRs are not. */
const pamtCell = fc.oneof({ weight: 8, arbitrary: fc.integer({ min: WORLD / 2, max: WORLD - 1 }) }, cell);
const pamtArea = fc.tuple(pamtCell, fc.integer({ min: 1, max: 3 }));
const tdmr = fc.record({
  gib: fc.integer({ min: 0, max: 3 }),
  sizeGib: fc.integer({ min: 1, max: 2 }),
  reserved: fc.array(fc.tuple(fc.integer({ min: 0, max: 511 }), fc.integer({ min: 1, max: 200 })), {
    maxLength: 3,
  }),
  pamt: fc.tuple(pamtArea, pamtArea, pamtArea),
});
const world = fc.record({
  tdmrs: fc.array(tdmr, { minLength: 1, maxLength: 3 }),
  sorted: fc.boolean(),
  hole: fc.tuple(cell, fc.integer({ min: 0, max: 60 })),
});

describe('against rules written as sets', () => {
  it('accepts exactly what the rules allow', () => {
    let accepted = 0;
    fc.assert(
      fc.property(world, ({ tdmrs, sorted, hole: [holeStart, holeCells] }) => {
        const holeEnd = Math.min(holeStart + holeCells, WORLD);
        const cmrs = [
          { start: 0, end: holeStart * CELL },
          { start: holeEnd * CELL, end: WORLD * CELL },
        ];
        const list = sorted ? [...tdmrs].sort((a, b) => a.gib - b.gib) : tdmrs;
        const infos = list.map(
          ({ gib, sizeGib, reserved, pamt: [k4, m2, g1] }): TdmrInfo => ({
            base: gib * GIB,
            size: sizeGib * GIB,
            pamt1gBase: g1[0] * CELL,
            pamt1gSize: g1[1] * CELL,
            pamt2mBase: m2[0] * CELL,
            pamt2mSize: m2[1] * CELL,
            pamt4kBase: k4[0] * CELL,
            pamt4kSize: k4[1] * CELL,
            reserved: [...reserved]
              .sort((a, b) => a[0] - b[0])
              .map(([offset, size]) => ({ offset: offset * CELL, size: size * CELL })),
          }),
        );
        const status = checkTdmrs(infos, { ...CONTEXT, cmrs });
        expect(status === 0n).toBe(isValid(infos, cmrs));
        if (status === 0n) accepted++;
      }),
      { numRuns: 2000 },
    );
    expect(accepted).toBeGreaterThan(50);
  });
});
