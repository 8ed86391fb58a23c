import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_2M, PAGE_4K } from '../../src/abi/address.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { PAGE_TYPE } from '../../src/abi/page-types.ts';
import { TDR } from '../../src/module/td/layout.ts';
import { PageTableModel, type Place, PUBLIC_STATE } from '../support/page-table-model.ts';
import { FREE_GIB, type ReadyTd, readyTd, SOURCE_PAGE } from '../support/ready-td.ts';

const RANGES = 2;
const FIRST_GPA = 0x20_0000;
const INDICES = [0, 1, 511];
/** Pages to map: two whole ranges of 2 MiB, and single pages within and beside them. */
const LARGE = [FREE_GIB, FREE_GIB + PAGE_2M];
const SMALL = [...LARGE, FREE_GIB + PAGE_4K, FREE_GIB + PAGE_2M - PAGE_4K, FREE_GIB + 3 * PAGE_2M + PAGE_4K];
const TABLES = [FREE_GIB + 4 * PAGE_2M, FREE_GIB + 4 * PAGE_2M + PAGE_4K];
const ADDRESS = 0xf_ffff_ffff_f000n;

const place = fc.record<Place>({
  range: fc.nat(RANGES - 1),
  index: fc.option(fc.constantFrom(...INDICES), { nil: undefined }),
});
const small = fc.constantFrom(...SMALL, ...TABLES);
const range = fc.nat(RANGES - 1);

type Step = readonly [name: string, model: (m: PageTableModel) => bigint, call: (t: ReadyTd) => bigint];

const gpaOf = ({ range: r, index = 0 }: Place): number => FIRST_GPA + r * PAGE_2M + index * PAGE_4K;
const on = (t: ReadyTd, leaf: number, at: Place, r8 = 0): bigint =>
  t.on(leaf, gpaOf(at), at.index === undefined ? 1 : 0, { r8: BigInt(r8), r9: BigInt(SOURCE_PAGE) }).rax!;
const show = (at: Place): string => `${at.range}${at.index === undefined ? '' : `/${at.index}`}`;

const onPlace = (name: 'block' | 'unblock' | 'remove', leaf: number): fc.Arbitrary<Step> =>
  place.map((at) => [`${name} ${show(at)}`, (m) => m[name](at), (t) => on(t, leaf, at)]);

const steps: fc.Arbitrary<Step> = fc.oneof(
  fc
    .tuple(range, fc.constantFrom(...TABLES))
    .map(
      ([r, page]): Step => [
        `add table ${r}`,
        (m) => m.addTable(r, page),
        (t) => on(t, TDH.memSeptAdd, { range: r }, page),
      ],
    ),
  fc.tuple(place, small, fc.constantFrom(...LARGE)).map(([at, page, large]): Step => {
    const given = at.index === undefined ? large : page;
    return [`aug ${show(at)}`, (m) => m.give(at, given, 'PENDING'), (t) => on(t, TDH.memPageAug, at, given)];
  }),
  onPlace('block', TDH.memRangeBlock),
  onPlace('unblock', TDH.memRangeUnblock),
  onPlace('remove', TDH.memPageRemove),
  fc.constant<Step>(['track', (m) => m.track(), (t) => t.status(TDH.memTrack, { rcx: t.tdr })]),
  range.map(
    (r): Step => [
      `remove table ${r}`,
      (m) => m.removeTable(r),
      (t) => on(t, TDH.memSeptRemove, { range: r }),
    ],
  ),
  fc.tuple(range, fc.constantFrom(...INDICES), small).map(([r, index, page]): Step => {
    const at = { range: r, index };
    return [`relocate ${show(at)}`, (m) => m.relocate(at, page), (t) => on(t, TDH.memPageRelocate, at, page)];
  }),
  fc
    .tuple(range, fc.constantFrom(...TABLES))
    .map(
      ([r, page]): Step => [
        `demote ${r}`,
        (m) => m.demote(r, page),
        (t) => on(t, TDH.memPageDemote, { range: r }, page),
      ],
    ),
  range.map(
    (r): Step => [`promote ${r}`, (m) => m.promote(r), (t) => on(t, TDH.memPagePromote, { range: r })],
  ),
);

/** The way to a change that takes several calls, so that random sequences get further. */
const routes: fc.Arbitrary<readonly Step[]> = fc.oneof(
  { weight: 3, arbitrary: fc.array(steps, { minLength: 1, maxLength: 3 }) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(place, steps)
      .map(([at, step]): readonly Step[] => [
        [`block ${show(at)}`, (m) => m.block(at), (t) => on(t, TDH.memRangeBlock, at)],
        ['track', (m) => m.track(), (t) => t.status(TDH.memTrack, { rcx: t.tdr })],
        step,
      ]),
  },
);

const PAMT_TYPES = {
  free: PAGE_TYPE.NDA,
  page: PAGE_TYPE.REG,
  'large page': PAGE_TYPE.REG,
  table: PAGE_TYPE.EPT,
};

/** Compares every entry that the walk can reach, the metadata of every page it can use, and the count of both. */
function compare(t: ReadyTd, model: PageTableModel, childrenBefore: number): void {
  for (let r = 0; r < RANGES; r++) {
    for (const index of [undefined, ...INDICES]) {
      const at: Place = { range: r, index };
      const entry = model.entry(at);
      if (entry === undefined) continue;
      const level = index === undefined ? 1 : 0;
      const seen = t.on(TDH.memSeptRd, gpaOf(at), level);
      expect([seen.rax, (seen.rdx ?? 0n) >> 8n]).toEqual([0n, BigInt(PUBLIC_STATE[entry.state])]);
      const leaf = entry.state !== 'FREE' && !entry.state.startsWith('TABLE');
      if (leaf) expect(Number(seen.rcx! & ADDRESS)).toBe(entry.page);
    }
  }
  for (const page of [...SMALL, ...TABLES]) {
    const use = model.use(page);
    const metadata = t.call(TDH.phymemPageRdmd, { rcx: BigInt(page) });
    const level = use === 'large page' ? 1n : undefined;
    expect([metadata.rcx ?? 0n, metadata.r8]).toEqual([BigInt(PAMT_TYPES[use]), level]);
  }
  expect(t.td.tdr.n64(TDR.CHLDCNT)).toBe(childrenBefore + model.pages);
}

describe('a random walk over the memory of a TD', () => {
  it('agrees with a page-table model: every status, every entry, all page metadata', () => {
    const tds = { false: readyTd({ twoTdmrs: true }), true: readyTd({ twoTdmrs: true, runnable: true }) };
    for (const t of Object.values(tds)) t.addTables(FIRST_GPA, 1);
    const ends = new Map<string, number>();
    fc.assert(
      fc.property(fc.boolean(), fc.array(routes, { minLength: 5, maxLength: 40 }), (runs, walk) => {
        const t = tds[`${runs}`];
        const childrenBefore = t.td.tdr.n64(TDR.CHLDCNT);
        const model = new PageTableModel(RANGES, runs);
        for (const [name, predict, call] of walk.flat()) {
          const expected = predict(model);
          expect(`${name}: ${call(t).toString(16)}`).toBe(`${name}: ${expected.toString(16)}`);
          compare(t, model, childrenBefore);
          if (expected === 0n) ends.set(name.split(' ')[0]!, (ends.get(name.split(' ')[0]!) ?? 0) + 1);
        }
        empty(t, model);
        compare(t, model, childrenBefore);
      }),
      { numRuns: 150 },
    );
    for (const name of ['add', 'aug', 'block', 'unblock', 'remove', 'relocate', 'demote', 'promote']) {
      expect([name, ends.get(name) ?? 0]).not.toEqual([name, 0]);
    }
  });
});

/** Takes everything from the TD again, so that the next walk begins with nothing. */
function empty(t: ReadyTd, model: PageTableModel): void {
  const take = (at: Place, leaf: number, remove: () => bigint): void => {
    model.block(at);
    on(t, TDH.memRangeBlock, at);
    model.track();
    t.status(TDH.memTrack, { rcx: t.tdr });
    expect(on(t, leaf, at)).toBe(remove());
  };
  for (let r = 0; r < RANGES; r++) {
    const at: Place = { range: r };
    if (model.ranges[r]!.state === 'TABLE_BLOCKED') {
      t.status(TDH.memTrack, { rcx: t.tdr });
      model.track();
      expect(on(t, TDH.memRangeUnblock, at)).toBe(model.unblock(at));
    }
    const { state, children } = model.ranges[r]!;
    if (state === 'TABLE') {
      for (const [index, child] of children.entries()) {
        if (child.state !== 'FREE')
          take({ range: r, index }, TDH.memPageRemove, () => model.remove({ range: r, index }));
      }
      take(at, TDH.memSeptRemove, () => model.removeTable(r));
    } else if (state !== 'FREE') take(at, TDH.memPageRemove, () => model.remove(at));
  }
}
