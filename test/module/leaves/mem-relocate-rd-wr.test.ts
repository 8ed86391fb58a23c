import { describe, expect, it } from 'vitest';
import { GIB, PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { LEVEL_4K, PAGE_TYPE } from '../../../src/abi/page-types.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { TDCS } from '../../../src/module/td/layout.ts';
import { type ReadyTd, readyTd, SOURCE_PAGE } from '../../support/ready-td.ts';

const GPA = 0x20_0000;
const HINT = 1n << 62n;
const DEBUG = 1n;

/** A TD with one mapped page that holds the numbers 0 to 511. */
function withMappedPage(options: Parameters<typeof readyTd>[0] = {}): ReadyTd & { hpa: bigint } {
  const t = readyTd(options);
  t.addTables(GPA, 0);
  for (let i = 0; i < 512; i++) t.machine.memory.write64(SOURCE_PAGE + 8 * i, BigInt(i), 0);
  const hpa = t.page();
  expect(t.on(TDH.memPageAdd, GPA, 0, { r8: hpa, r9: BigInt(SOURCE_PAGE) }).rax).toBe(0n);
  return { ...t, hpa };
}

describe('TDH.MEM.PAGE.RELOCATE', () => {
  it('moves the contents, unblocks, and gives the old page back', () => {
    const t = withMappedPage();
    t.on(TDH.memRangeBlock, GPA);
    const target = t.page();
    expect(t.on(TDH.memPageRelocate, GPA, 0, { r8: target })).toEqual({ rax: 0n, rcx: t.hpa, r8: target });
    expect(t.on(TDH.memSeptRd, GPA)).toEqual({ rax: 0n, rcx: (1n << 63n) | target | 0x4f7n, rdx: 0x400n });
    expect(t.machine.memory.read64(Number(target) + 8 * 77, t.td.keyId)).toBe(77n);
    const [from, to] = [t.hpa, target].map((page) => t.module.pamt.entry(Number(page), LEVEL_4K));
    expect([from!.type, to!.type, to!.owner]).toEqual([PAGE_TYPE.NDA, PAGE_TYPE.REG, Number(t.tdr)]);
  });

  it('takes 4 KiB pages that are blocked and tracked, to another free page', () => {
    const t = readyTd({ runnable: true });
    t.addTables(GPA, 0);
    const hpa = t.page();
    t.on(TDH.memPageAug, GPA, 0, { r8: hpa });
    const relocate = (gpa: number, level: number, r8: bigint): bigint =>
      t.on(TDH.memPageRelocate, gpa, level, { r8 }).rax!;
    expect(relocate(GPA, 1, 1n)).toBe(STATUS.TDX_OPERAND_INVALID | 1n);
    expect(relocate(GPA + PAGE_4K, 0, 1n)).toBe(STATUS.TDX_EPT_ENTRY_STATE_INCORRECT | 1n);
    expect(relocate(GPA, 0, hpa)).toBe(STATUS.TDX_OPERAND_INVALID | 8n);
    expect(relocate(GPA, 0, hpa | (1n << 60n))).toBe(STATUS.TDX_OPERAND_INVALID | 8n);
    expect(relocate(GPA, 0, 1n)).toBe(STATUS.TDX_GPA_RANGE_NOT_BLOCKED | 1n);
    t.on(TDH.memRangeBlock, GPA);
    expect(relocate(GPA, 0, 1n)).toBe(STATUS.TDX_TLB_TRACKING_NOT_DONE | 1n);
    t.status(TDH.memTrack, { rcx: t.tdr });
    expect(relocate(GPA, 0, 1n)).toBe(STATUS.TDX_OPERAND_INVALID | 8n);
    expect(relocate(GPA, 0, t.tdvpr)).toBe(STATUS.TDX_PAGE_METADATA_INCORRECT | 8n);
    expect(relocate(GPA, 0, t.page())).toBe(0n);
    expect(t.on(TDH.memSeptRd, GPA).rdx).toBe(0x200n);
  });

  it('counts pages under their page pairs', () => {
    const t = readyTd({ dynamicPamt: true });
    t.addTables(GPA, 0);
    let lonely = t.page();
    while (lonely % BigInt(PAGE_2M) !== 0n) lonely = t.page();
    t.on(TDH.memPageAug, GPA, 0, { r8: lonely });
    const neighbour = lonely + BigInt(PAGE_4K);
    expect(t.on(TDH.memPageRelocate, GPA, 0, { r8: neighbour }).rcx).toBe(lonely);
    let elsewhere = t.page();
    while (elsewhere % BigInt(PAGE_2M) !== 0n) elsewhere = t.page();
    expect(t.on(TDH.memPageRelocate, GPA, 0, { r8: elsewhere }).rcx).toBe(neighbour | HINT);
  });
});

describe('TDH.MEM.RD and WR', () => {
  it('reach the memory of a debug TD', () => {
    const t = withMappedPage({ attributes: DEBUG });
    expect(t.on(TDH.memRd, GPA + 8 * 5, 0, { r8: 9n })).toEqual({ rax: 0n, r8: 5n });
    expect(t.on(TDH.memWr, GPA + 8 * 5, 0, { r8: 0xabcn })).toEqual({ rax: 0n, r8: 5n });
    expect(t.on(TDH.memRd, GPA + 8 * 5)).toEqual({ rax: 0n, r8: 0xabcn });
  });

  it('refuse other TDs and addresses, the tree lock before the address', () => {
    expect(withMappedPage().on(TDH.memRd, GPA, 0, { r8: 9n })).toEqual({ rax: STATUS.TDX_TD_NON_DEBUG });
    const t = withMappedPage({ attributes: DEBUG });
    const status = (gpa: number): bigint => t.on(TDH.memRd, gpa).rax!;
    expect(status(GPA + 4)).toBe(STATUS.TDX_OPERAND_INVALID | 1n);
    expect(status(2 ** 47)).toBe(STATUS.TDX_OPERAND_INVALID | 1n);
    t.td.tdcs.setU16(TDCS.SEPT_TREE_LOCK, 1);
    expect(status(2 ** 47)).toBe(STATUS.TDX_OPERAND_BUSY | 146n);
    t.td.tdcs.setU16(TDCS.SEPT_TREE_LOCK, 0);
    expect(t.on(TDH.memRd, GIB)).toEqual({
      rax: STATUS.TDX_EPT_ENTRY_NOT_PRESENT | 1n,
      rcx: 1n << 63n,
      rdx: 2n,
    });
    t.on(TDH.memRangeBlock, GPA);
    expect(t.on(TDH.memWr, GPA).rax).toBe(STATUS.TDX_EPT_ENTRY_NOT_PRESENT | 1n);
  });
});

describe('TDH.MEM.SEPT.RD', () => {
  it('tells attributes of L2 entries of debug TDs only', () => {
    const t = withMappedPage();
    const withAttributes = (level: number): ReturnType<ReadyTd['on']> =>
      t.on(TDH.memSeptRd, GPA, level, { rdx: t.tdr | 1n, r8: 9n });
    expect(withAttributes(0)).toEqual({ rax: STATUS.TDX_OPERAND_INVALID | 2n, r8: 9n });
    t.td.tdcs.setU64(TDCS.ATTRIBUTES, DEBUG);
    expect(withAttributes(0)).toEqual({ rax: 0n, rcx: (1n << 63n) | t.hpa | 0x4f7n, rdx: 0x400n });
    expect(t.on(TDH.memSeptRd, GPA, 0, { rdx: t.tdr | 2n }).rax).toBe(STATUS.TDX_OPERAND_INVALID | 2n);
  });

  it('reads up to the root of trees of four and five levels', () => {
    for (const levels of [4, 5] as const) {
      const t = readyTd({ levels });
      expect(t.on(TDH.memSeptRd, 0, levels - 1)).toEqual({
        rax: 0n,
        rcx: 1n << 63n,
        rdx: BigInt(levels - 1),
      });
      expect(t.on(TDH.memSeptRd, 0, levels).rax).toBe(STATUS.TDX_OPERAND_INVALID | 1n);
      t.addTables(GPA, 0);
      expect(t.on(TDH.memPageAug, GPA, 0, { r8: t.page() }).rax).toBe(0n);
    }
  });
});
