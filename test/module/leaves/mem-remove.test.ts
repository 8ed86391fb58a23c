import { describe, expect, it } from 'vitest';
import { PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { LEVEL_2M, LEVEL_4K, PAGE_TYPE } from '../../../src/abi/page-types.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { NULL_PA, TDR } from '../../../src/module/td/layout.ts';
import { FREE_GIB, readyTd, SOURCE_PAGE } from '../../support/ready-td.ts';

const GPA = 0x20_0000;
const HINT = 1n << 62n;

describe('TDH.MEM.PAGE.REMOVE', () => {
  it('gives pages of both sizes back to the host', () => {
    const t = readyTd({ runnable: true, twoTdmrs: true });
    t.addTables(GPA, 0);
    t.addTables(2 * GPA, 1);
    const hpa = t.page();
    const before = t.td.tdr.n64(TDR.CHLDCNT);
    t.on(TDH.memPageAug, GPA, 0, { r8: hpa });
    t.on(TDH.memPageAug, 2 * GPA, 1, { r8: BigInt(FREE_GIB) });
    expect(t.on(TDH.memPageRemove, GPA)).toMatchObject({
      rax: STATUS.TDX_GPA_RANGE_NOT_BLOCKED | 1n,
      rcx: (1n << 63n) | hpa | 0xf0n,
    });
    t.blockAndTrack(GPA);
    t.blockAndTrack(2 * GPA, 1);
    expect(t.on(TDH.memPageRemove, GPA)).toEqual({ rax: 0n, rcx: hpa });
    expect(t.on(TDH.memPageRemove, 2 * GPA, 1)).toEqual({ rax: 0n, rcx: BigInt(FREE_GIB) });
    expect(t.td.tdr.n64(TDR.CHLDCNT)).toBe(before);
    expect(t.module.pamt.entry(Number(hpa), LEVEL_4K).type).toBe(PAGE_TYPE.NDA);
    expect(t.module.pamt.entry(FREE_GIB, LEVEL_2M).type).toBe(PAGE_TYPE.NDA);
    expect(t.on(TDH.memSeptRd, GPA)).toEqual({ rax: 0n, rcx: 1n << 63n });
  });

  it('takes mapped pages at once while the TD cannot run', () => {
    const t = readyTd();
    t.addTables(GPA, 0);
    const hpa = t.page();
    expect(t.on(TDH.memPageAdd, GPA, 0, { r8: hpa, r9: BigInt(SOURCE_PAGE) }).rax).toBe(0n);
    expect(t.on(TDH.memPageRemove, GPA, 1).rax).toBe(STATUS.TDX_EPT_ENTRY_STATE_INCORRECT | 1n);
    expect(t.on(TDH.memPageRemove, GPA, 3).rax).toBe(STATUS.TDX_OPERAND_INVALID | 1n);
    t.module.pamt.entry(Number(hpa), LEVEL_4K).lockWord = 4;
    expect(t.on(TDH.memPageRemove, GPA)).toEqual({ rax: STATUS.TDX_OPERAND_BUSY | 1n });
    t.module.pamt.entry(Number(hpa), LEVEL_4K).lockWord = 0;
    expect(t.on(TDH.memPageRemove, GPA)).toEqual({ rax: 0n, rcx: hpa });
    expect(t.on(TDH.memPageRemove, GPA)).toEqual({
      rax: STATUS.TDX_EPT_ENTRY_STATE_INCORRECT | 1n,
      rcx: 1n << 63n,
    });
  });

  it('hints at the page pair that the last page of a range sets free', () => {
    const t = readyTd({ dynamicPamt: true });
    t.addTables(GPA, 0);
    let first = t.page();
    while (first % BigInt(PAGE_2M) !== 0n) first = t.page();
    const second = t.page();
    t.on(TDH.memPageAug, GPA, 0, { r8: first });
    t.on(TDH.memPageAug, GPA + PAGE_4K, 0, { r8: second });
    expect(t.on(TDH.memPageRemove, GPA + PAGE_4K)).toEqual({ rax: 0n, rcx: second });
    expect(t.on(TDH.memPageRemove, GPA)).toEqual({ rax: 0n, rcx: first | HINT });
    expect(t.status(TDH.phymemPamtRemove, { rcx: first | 1n })).toBe(0n);
  });
});

describe('TDH.MEM.SEPT.REMOVE', () => {
  it('takes empty tables only', () => {
    const t = readyTd({ runnable: true });
    t.addTables(GPA, 0);
    const before = t.td.tdr.n64(TDR.CHLDCNT);
    t.on(TDH.memPageAug, GPA + 5 * PAGE_4K, 0, { r8: t.page() });
    expect(t.on(TDH.memSeptRemove, GPA, 1)).toMatchObject({
      rax: STATUS.TDX_GPA_RANGE_NOT_BLOCKED | 1n,
      rcx: 0x407n,
      rdx: 0x8401n,
    });
    t.blockAndTrack(GPA, 1);
    expect(t.on(TDH.memSeptRemove, GPA, 1)).toEqual({
      rax: STATUS.TDX_EPT_PAGE_NOT_FREE | 1n,
      rdx: 0x8101n,
    });
    t.on(TDH.memRangeUnblock, GPA, 1);
    t.blockAndTrack(GPA + 5 * PAGE_4K);
    t.on(TDH.memPageRemove, GPA + 5 * PAGE_4K);
    t.on(TDH.memRangeBlock, GPA, 1);
    expect(t.on(TDH.memSeptRemove, GPA, 1)).toEqual({ rax: STATUS.TDX_TLB_TRACKING_NOT_DONE | 1n });
    t.status(TDH.memTrack, { rcx: t.tdr });
    const removed = t.on(TDH.memSeptRemove, GPA, 1);
    expect(removed.rax).toBe(0n);
    expect(t.module.pamt.entry(Number(removed.rcx!), LEVEL_4K).type).toBe(PAGE_TYPE.NDA);
    expect(t.td.tdr.n64(TDR.CHLDCNT)).toBe(before - 1);
    expect(t.on(TDH.memSeptRemove, GPA, 0).rax).toBe(STATUS.TDX_OPERAND_INVALID | 1n);
  });

  it('takes the tables of L2 VMs along, and tells of them from version 1 on', () => {
    const pages = [0, 1].map((version) => {
      const t = readyTd({ l2Vms: 2 });
      const [own, l2] = [t.page(), t.page()];
      const tree = { rcx: 3n, rdx: t.tdr, r8: own, r9: l2, r10: NULL_PA, r11: NULL_PA };
      expect(t.call(TDH.memSeptAdd | (1 << 16), tree).rax).toBe(0n);
      const before = t.td.tdr.n64(TDR.CHLDCNT);
      const out = t.on(TDH.memSeptRemove | (version << 16), 0, 3, { r9: 5n });
      expect(t.td.tdr.n64(TDR.CHLDCNT)).toBe(before - 2);
      expect(t.module.pamt.entry(Number(l2), LEVEL_4K).type).toBe(PAGE_TYPE.NDA);
      return { out, own, l2 };
    });
    expect(pages[0]!.out).toEqual({ rax: 0n, rcx: pages[0]!.own, r9: 5n });
    expect(pages[1]!.out).toEqual({
      rax: 0n,
      rcx: pages[1]!.own,
      r9: pages[1]!.l2,
      r10: NULL_PA,
      r11: NULL_PA,
    });
  });

  it('has two versions', () => {
    const t = readyTd();
    expect(t.on(TDH.memSeptRemove | (2 << 16), 0, 3)).toEqual({
      rax: STATUS.TDX_OPERAND_INVALID,
      r9: NULL_PA,
      r10: NULL_PA,
      r11: NULL_PA,
    });
  });
});
