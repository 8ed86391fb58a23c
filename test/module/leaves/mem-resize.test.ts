import { describe, expect, it } from 'vitest';
import { GIB, PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { LEVEL_1G, LEVEL_2M, LEVEL_4K, PAGE_TYPE } from '../../../src/abi/page-types.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { INTR_PENDING_MSR } from '../../../src/module/pending-events.ts';
import { NULL_PA, TDCS, TDR } from '../../../src/module/td/layout.ts';
import { FREE_GIB, type ReadyTd, readyTd, SOURCE_PAGE } from '../../support/ready-td.ts';

const GPA = 0x20_0000;
const SVE = 1n << 63n;
const INVALID = STATUS.TDX_EPT_INVALID_PROMOTE_CONDITIONS | 1n;
const V1 = 1 << 16;

/** A TD with one pending 2 MiB page, and the page that holds its table once it is demoted. */
function withLargePage(options: Parameters<typeof readyTd>[0] = {}): ReadyTd & { table: bigint } {
  const t = readyTd({ twoTdmrs: true, ...options });
  t.addTables(GPA, 1);
  expect(t.on(TDH.memPageAug, GPA, 1, { r8: BigInt(FREE_GIB) }).rax).toBe(0n);
  return { ...t, table: t.page() };
}

const demote = (t: ReadyTd, r8: bigint, operands = {}): ReturnType<ReadyTd['on']> =>
  t.on(TDH.memPageDemote, GPA, 1, { r8, ...operands });
const promote = (t: ReadyTd, version = 0): ReturnType<ReadyTd['on']> =>
  t.on(TDH.memPagePromote | (version << 16), GPA, 1);
const pamtTypes = (t: ReadyTd): readonly number[] => [
  t.module.pamt.entry(FREE_GIB, LEVEL_2M).type,
  t.module.pamt.entry(FREE_GIB, LEVEL_4K).type,
  t.module.pamt.entry(FREE_GIB + PAGE_2M - PAGE_4K, LEVEL_4K).type,
];

describe('TDH.MEM.PAGE.DEMOTE and PROMOTE', () => {
  it('undo each other', () => {
    const t = withLargePage();
    const before = t.td.tdr.n64(TDR.CHLDCNT);
    expect(demote(t, t.table)).toEqual({ rax: 0n, r8: t.table });
    expect(pamtTypes(t)).toEqual([PAGE_TYPE.NDA, PAGE_TYPE.REG, PAGE_TYPE.REG]);
    expect(t.td.tdr.n64(TDR.CHLDCNT)).toBe(before + 1);
    for (const i of [0, 300, 511]) {
      const page = BigInt(FREE_GIB + i * PAGE_4K);
      expect(t.on(TDH.memSeptRd, GPA + i * PAGE_4K)).toEqual({
        rax: 0n,
        rcx: SVE | page | 0xf0n,
        rdx: 0x200n,
      });
    }
    expect(promote(t)).toEqual({ rax: 0n, rcx: t.table });
    expect(pamtTypes(t)).toEqual([PAGE_TYPE.REG, PAGE_TYPE.NDA, PAGE_TYPE.NDA]);
    expect(t.td.tdr.n64(TDR.CHLDCNT)).toBe(before);
    expect(t.on(TDH.memSeptRd, GPA, 1)).toEqual({
      rax: 0n,
      rcx: SVE | BigInt(FREE_GIB) | 0xf0n,
      rdx: 0x201n,
    });
  });

  it('want the range blocked and tracked once the TD may run, and unblock it', () => {
    const t = withLargePage({ runnable: true });
    expect(demote(t, t.table)).toMatchObject({ rax: STATUS.TDX_GPA_RANGE_NOT_BLOCKED | 1n, rdx: 0x201n });
    t.on(TDH.memRangeBlock, GPA, 1);
    expect(demote(t, t.table)).toEqual({ rax: STATUS.TDX_TLB_TRACKING_NOT_DONE | 1n, r8: t.table });
    t.status(TDH.memTrack, { rcx: t.tdr });
    expect(demote(t, t.table).rax).toBe(0n);
    expect(t.on(TDH.memSeptRd, GPA, 1).rdx).toBe(0x8401n);
    expect(t.on(TDH.memSeptRd, GPA).rdx).toBe(0x200n);
    expect(promote(t).rax).toBe(STATUS.TDX_GPA_RANGE_NOT_BLOCKED | 1n);
    t.blockAndTrack(GPA, 1);
    expect(promote(t)).toEqual({ rax: 0n, rcx: t.table });
    expect(t.on(TDH.memSeptRd, GPA, 1).rdx).toBe(0x201n);
  });

  it('merge only 512 like pages in a row', () => {
    const t = withLargePage();
    demote(t, t.table);
    const last = GPA + 511 * PAGE_4K;
    t.on(TDH.memRangeBlock, last);
    expect(promote(t)).toEqual({ rax: INVALID, rcx: 0x407n, rdx: 0x8401n });
    t.on(TDH.memRangeUnblock, last);
    expect(t.on(TDH.memPageRelocate, last, 0, { r8: t.page() }).rax).toBe(0n);
    expect(promote(t).rax).toBe(INVALID);
    expect(t.on(TDH.memPageRelocate, last, 0, { r8: BigInt(FREE_GIB + PAGE_2M - PAGE_4K) }).rax).toBe(0n);
    expect(promote(t).rax).toBe(0n);
    expect(promote(t).rax).toBe(STATUS.TDX_EPT_ENTRY_STATE_INCORRECT | 1n);
  });

  it('merge what was added page by page, at 2 MiB and at 1 GiB', () => {
    const t = readyTd({ twoTdmrs: true });
    t.addTables(GIB, 1);
    for (let i = 0; i < 512; i++) {
      expect(t.on(TDH.memPageAug, GIB + i * PAGE_2M, 1, { r8: BigInt(FREE_GIB + i * PAGE_2M) }).rax).toBe(0n);
    }
    const merged = t.on(TDH.memPagePromote, GIB, 2);
    expect(merged.rax).toBe(0n);
    expect(t.module.pamt.entry(Number(merged.rcx), LEVEL_4K).type).toBe(PAGE_TYPE.NDA);
    expect(t.module.pamt.entry(FREE_GIB, LEVEL_1G).type).toBe(PAGE_TYPE.REG);
    expect(t.module.pamt.entry(FREE_GIB, LEVEL_2M).type).toBe(PAGE_TYPE.NDA);
    expect(t.on(TDH.memSeptRd, GIB, 2)).toEqual({
      rax: 0n,
      rcx: SVE | BigInt(FREE_GIB) | 0xf0n,
      rdx: 0x202n,
    });
    const table = t.page();
    expect(t.on(TDH.memPageDemote, GIB, 2, { r8: table }).rax).toBe(0n);
    expect(t.module.pamt.entry(FREE_GIB + 5 * PAGE_2M, LEVEL_2M).type).toBe(PAGE_TYPE.REG);
    expect(t.on(TDH.memPagePromote, GIB, 2).rax).toBe(0n);
    expect(t.on(TDH.memPageRemove, GIB, 2)).toEqual({ rax: 0n, rcx: BigInt(FREE_GIB) });
    expect(t.module.pamt.entry(FREE_GIB, LEVEL_1G).type).toBe(PAGE_TYPE.NDA);

    t.addTables(GPA, 0);
    for (let i = 0; i < 512; i++) {
      const operands = { r8: BigInt(FREE_GIB + i * PAGE_4K), r9: BigInt(SOURCE_PAGE) };
      expect(t.on(TDH.memPageAdd, GPA + i * PAGE_4K, 0, operands).rax).toBe(0n);
    }
    expect(promote(t).rax).toBe(0n);
    expect(t.on(TDH.memSeptRd, GPA, 1)).toEqual({
      rax: 0n,
      rcx: SVE | BigInt(FREE_GIB) | 0x4f7n,
      rdx: 0x401n,
    });
  });

  it('stop for an event of the host before anything is done', () => {
    const t = withLargePage();
    const lp = t.machine.lps[0]!;
    const asked = { rcx: BigInt(GPA) | 1n, rdx: t.tdr, r8: t.table };
    lp.msrs.set(INTR_PENDING_MSR, 1n);
    expect(demote(t, t.table)).toEqual({ rax: STATUS.TDX_INTERRUPTED_RESTARTABLE, ...asked });
    lp.msrs.set(INTR_PENDING_MSR, 0n);
    expect(demote(t, t.table).rax).toBe(0n);
    lp.msrs.set(INTR_PENDING_MSR, 1n);
    const { r8: _, ...rest } = asked;
    expect(promote(t)).toEqual({ rax: STATUS.TDX_INTERRUPTED_RESTARTABLE, ...rest });
    expect(pamtTypes(t)).toEqual([PAGE_TYPE.NDA, PAGE_TYPE.REG, PAGE_TYPE.REG]);
  });

  it('meet locked metadata', () => {
    const t = withLargePage();
    const large = t.module.pamt.entry(FREE_GIB, LEVEL_2M);
    large.lockWord = 4;
    expect(demote(t, t.table)).toEqual({ rax: STATUS.TDX_OPERAND_BUSY | 1n, r8: t.table });
    large.lockWord = 0;
    expect(demote(t, t.table).rax).toBe(0n);
    large.lockWord = 4;
    expect(promote(t)).toEqual({ rax: STATUS.TDX_OPERAND_BUSY | 1n });
    large.lockWord = 0;
    const table = t.module.pamt.entry(Number(t.table), LEVEL_4K);
    table.lockWord = 4;
    expect(promote(t)).toEqual({ rax: STATUS.TDX_OPERAND_BUSY | 1n });
    table.lockWord = 0;
    expect(promote(t).rax).toBe(0n);
  });
});

describe('page pairs of dynamic PAMT', () => {
  it('come with a demotion and go with a promotion', () => {
    const t = withLargePage({ dynamicPamt: true });
    const [r12, r13] = [t.page(), t.page()];
    const status = (operands: object): bigint => demote(t, t.table, operands).rax!;
    expect(status({ r12: 1n, r13: 1n })).toBe(STATUS.TDX_OPERAND_INVALID | 12n);
    expect(status({ r12, r13: 1n })).toBe(STATUS.TDX_OPERAND_INVALID | 13n);
    expect(status({ r12: BigInt(7 * GIB), r13 })).toBe(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR | 12n);
    expect(status({ r12, r13: BigInt(7 * GIB) })).toBe(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR | 13n);
    expect(status({ r12: t.table, r13 })).toBe(STATUS.TDX_OPERAND_BUSY | 12n);
    expect(status({ r12, r13: t.tdr })).toBe(STATUS.TDX_PAGE_NOT_FREE | 13n);
    expect(status({ r12, r13: r12 })).toBe(STATUS.TDX_PAGE_NOT_FREE | 13n);
    expect(demote(t, t.table, { r12, r13 })).toEqual({ rax: 0n, r8: t.table, r12, r13 });
    expect(t.module.pamt.entry(FREE_GIB, LEVEL_2M).usedPages).toBe(512);
    expect(promote(t)).toEqual({ rax: 0n, rcx: t.table, r12, r13 });
    expect(t.module.pamt.entry(FREE_GIB, LEVEL_2M).type).toBe(PAGE_TYPE.REG);
    expect(demote(t, t.table, { r12, r13 }).rax).toBe(0n);
  });
});

describe('tables of L2 VMs', () => {
  const pages = (t: ReadyTd): { r9: bigint; r10: bigint; r11: bigint } => ({
    r9: t.page(),
    r10: t.page() | SVE,
    r11: 77n,
  });

  it('are added with a demotion for every VM, or only where the VM maps the page', () => {
    const t = withLargePage({ l2Vms: 2 });
    const offered = pages(t);
    const sparse = { rdx: t.tdr | 1n, ...offered };
    expect(demote(t, t.table, offered)).toMatchObject({
      rax: STATUS.TDX_L2_SEPT_WALK_FAILED | (1n << 16n) | 3n,
      rcx: SVE,
      rdx: 0x1_4003n,
    });
    expect(demote(t, t.table, sparse)).toEqual({
      rax: 0n,
      r8: t.table,
      r9: offered.r9 | SVE,
      r10: offered.r10,
      r11: 77n,
    });
    expect(promote(t, 1)).toEqual({ rax: 0n, rcx: t.table, r9: NULL_PA, r10: NULL_PA, r11: NULL_PA });
  });

  it('go away with a promotion', () => {
    const t = readyTd({ l2Vms: 1, twoTdmrs: true });
    for (const level of [3, 2]) {
      const tables = { r8: t.page(), r9: t.page(), r10: NULL_PA, r11: NULL_PA };
      expect(t.on(TDH.memSeptAdd | V1, 0, level, tables).rax).toBe(0n);
    }
    t.on(TDH.memPageAug, GPA, 1, { r8: BigInt(FREE_GIB) });
    const before = t.td.tdr.n64(TDR.CHLDCNT);
    const [table, l2Table] = [t.page(), t.page()];
    expect(demote(t, table, { r9: l2Table, r10: NULL_PA, r11: NULL_PA }).rax).toBe(0n);
    expect(t.td.tdr.n64(TDR.CHLDCNT)).toBe(before + 2);
    expect(t.on(TDH.memRangeBlock, GPA, 1).rax).toBe(0n);
    expect(promote(t, 1)).toEqual({ rax: 0n, rcx: table, r9: l2Table, r10: NULL_PA, r11: NULL_PA });
    expect(t.td.tdr.n64(TDR.CHLDCNT)).toBe(before);
    expect(t.td.sept(1).walk(GPA, 1).entry).toEqual({ low: 0, high: 0 });
    expect(t.on(TDH.memPageRemove, GPA, 1).rax).toBe(0n);
  });

  it('must be offered for a VM that maps the page', () => {
    const t = readyTd({ l2Vms: 1, twoTdmrs: true });
    for (const level of [3, 2]) {
      const tables = { r8: t.page(), r9: t.page(), r10: NULL_PA, r11: NULL_PA };
      t.on(TDH.memSeptAdd | V1, 0, level, tables);
    }
    t.on(TDH.memPageAug, GPA, 1, { r8: BigInt(FREE_GIB) });
    // What TDG.MEM.PAGE.ATTR.WR leaves of a pending page: a blocked entry that keeps R, and the mark in the TD's own.
    const ept = t.td.sept();
    const own = ept.walk(GPA, 1);
    ept.write(own.at, { low: own.entry.low, high: (own.entry.high | (1 << 26)) >>> 0 });
    const l2 = t.td.sept(1);
    const position = l2.walk(GPA, 1);
    l2.write(position.at, {
      low: (own.entry.low & ~0xfff) | 0xc8,
      high: ((own.entry.high & 0xf_ffff) | (1 << 23)) >>> 0,
    });
    const table = t.page();
    expect(demote(t, table, { r9: NULL_PA }).rax).toBe(STATUS.TDX_L2_SEPT_PAGE_NOT_PROVIDED | 9n);
    expect(demote(t, table, { rdx: t.tdr | 1n, r9: t.page() }).rax).toBe(0n);
    const piece = l2.walk(GPA + 7 * PAGE_4K, 0);
    expect(l2.pageAddress(piece.entry, 0)).toBe(FREE_GIB + 7 * PAGE_4K);
    expect(piece.entry.low & 0xfff).toBe(0xc8);
    t.td.tdcs.setU64(TDCS.ATTRIBUTES, 1n);
    const read = t.call(TDH.memSeptRd, { rcx: BigInt(GPA), rdx: t.tdr | 1n });
    expect(read.r8).toBe(0x8001_0000n);
    expect(promote(t, 1).rax).toBe(0n);
    expect(l2.walk(GPA, 1).entry.low & 0xfff).toBe(0xc8);
    expect(t.on(TDH.memPageRemove, GPA, 1).rax).toBe(0n);
    expect(l2.walk(GPA, 1).entry).toEqual({ low: 0, high: 0 });
  });
});
