import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { LEVEL_2M, LEVEL_4K, PAGE_TYPE } from '../../../src/abi/page-types.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { TDCS, TDR } from '../../../src/module/td/layout.ts';
import { SEPT_LOW } from '../../../src/module/td/sept-entry.ts';
import { FREE_GIB, readyTd } from '../../support/ready-td.ts';

const GPA = 0x20_0000;
const LARGE = FREE_GIB + 2 * PAGE_2M;
const FREE_DETAILS = { rcx: 1n << 63n };

describe('TDH.MEM.PAGE.AUG', () => {
  it('gives the TD a pending page', () => {
    const t = readyTd();
    t.addTables(GPA, 0);
    const before = t.td.tdr.n64(TDR.CHLDCNT);
    const page = t.page();
    expect(t.on(TDH.memPageAug, GPA, 0, { r8: page, r9: 7n })).toEqual({ rax: 0n, r8: page, r9: 7n });
    expect(t.td.tdr.n64(TDR.CHLDCNT)).toBe(before + 1);
    expect(t.on(TDH.memSeptRd, GPA)).toEqual({ rax: 0n, rcx: (1n << 63n) | page | 0xf0n, rdx: 0x200n });
    const entry = t.module.pamt.entry(Number(page), LEVEL_4K);
    expect([entry.type, entry.owner, entry.bepoch]).toEqual([PAGE_TYPE.REG, Number(t.tdr), 0n]);
  });

  it('gives 2 MiB where every 4 KiB page is free', () => {
    const t = readyTd({ twoTdmrs: true });
    t.addTables(GPA, 1);
    const before = t.td.tdr.n64(TDR.CHLDCNT);
    const stray = t.module.pamt.entry(LARGE + 300 * PAGE_4K, LEVEL_4K);
    stray.type = PAGE_TYPE.REG;
    const aug = (r8: bigint): bigint => t.on(TDH.memPageAug, GPA, 1, { r8 }).rax!;
    expect(aug(BigInt(LARGE))).toBe(STATUS.TDX_PAGE_METADATA_INCORRECT | 8n);
    stray.type = PAGE_TYPE.NDA;
    expect(aug(BigInt(LARGE + PAGE_4K))).toBe(STATUS.TDX_OPERAND_INVALID | 8n);
    expect(aug(BigInt(LARGE))).toBe(0n);
    expect(t.td.tdr.n64(TDR.CHLDCNT)).toBe(before + 512);
    expect(t.module.pamt.entry(LARGE, LEVEL_2M).type).toBe(PAGE_TYPE.REG);
    expect(t.module.pamt.entry(LARGE, LEVEL_4K).type).toBe(PAGE_TYPE.NDA);
    expect(t.on(TDH.memPageAug, GPA, 0, { r8: t.page() }).rax).toBe(STATUS.TDX_EPT_WALK_FAILED | 1n);
  });

  it('checks in the order of TD, operation state, guest address, entry, page', () => {
    const t = readyTd();
    const bad = { r8: 1n };
    expect(t.status(TDH.memPageAug, { rcx: 7n, rdx: t.tdr | 1n, ...bad })).toBe(
      STATUS.TDX_OPERAND_INVALID | 2n,
    );
    t.td.tdcs.setU16(TDCS.OP_STATE_LOCK, 1);
    expect(t.on(TDH.memPageAug, GPA, 7, bad)).toEqual({ rax: STATUS.TDX_OPERAND_BUSY | 172n, r8: 1n });
    t.td.tdcs.setU16(TDCS.OP_STATE_LOCK, 0);
    for (const [gpa, level] of [
      [GPA, 2],
      [GPA + 8, 0],
      [GPA + PAGE_4K, 1],
      [2 ** 47, 0],
      [2 ** 48, 0],
    ] as const) {
      expect(t.on(TDH.memPageAug, gpa, level, bad).rax).toBe(STATUS.TDX_OPERAND_INVALID | 1n);
    }
    t.td.tdcs.setU16(TDCS.SEPT_TREE_LOCK, 1);
    expect(t.on(TDH.memPageAug, GPA, 0, bad).rax).toBe(STATUS.TDX_OPERAND_BUSY | 146n);
    t.td.tdcs.setU16(TDCS.SEPT_TREE_LOCK, 0);
    expect(t.on(TDH.memPageAug, GPA, 0, bad)).toEqual({
      rax: STATUS.TDX_EPT_WALK_FAILED | 1n,
      r8: 1n,
      ...FREE_DETAILS,
      rdx: 3n,
    });
    t.addTables(GPA, 0);
    expect(t.on(TDH.memPageAug, GPA, 1, bad).rax).toBe(STATUS.TDX_EPT_ENTRY_STATE_INCORRECT | 1n);
    expect(t.on(TDH.memPageAug, GPA, 0, bad)).toEqual({ rax: STATUS.TDX_OPERAND_INVALID | 8n, r8: 1n });
    expect(t.on(TDH.memPageAug, GPA, 0, { r8: BigInt(7 * GIB) }).rax).toBe(
      STATUS.TDX_OPERAND_ADDR_RANGE_ERROR | 8n,
    );
    expect(t.on(TDH.memPageAug, GPA, 0, { r8: t.tdr }).rax).toBe(STATUS.TDX_OPERAND_BUSY | 8n);
    expect(t.on(TDH.memPageAug, GPA, 0, { r8: BigInt(4 * GIB + 512 * MIB) }).rax).toBe(
      STATUS.TDX_PAGE_METADATA_INCORRECT | 8n,
    );
  });

  it('meets a locked entry, leaves its claim on it and clears the claim when it gets the lock', () => {
    const t = readyTd();
    t.addTables(GPA, 0);
    const ept = t.td.sept();
    const { at, entry } = ept.walk(GPA, 0);
    ept.write(at, { low: entry.low | SEPT_LOW.TDEL, high: entry.high });
    expect(t.on(TDH.memPageAug, GPA, 0, { r8: t.page() })).toMatchObject({
      rax: STATUS.TDX_OPERAND_BUSY | 1n,
      ...FREE_DETAILS,
    });
    ept.unlock(at);
    expect(ept.tryLockForGuest(at)).toBe(STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY);
    expect(t.on(TDH.memPageAug, GPA, 0, { r8: t.page() }).rax).toBe(0n);
    expect(ept.tryLockForGuest(at)).toBe(0n);
  });

  it('counts 4 KiB pages under their page pair', () => {
    const t = readyTd({ dynamicPamt: true });
    t.addTables(GPA, 0);
    const page = t.page();
    const pair = t.module.pamt.entry(Number(page), LEVEL_2M);
    const before = pair.usedPages;
    expect(t.on(TDH.memPageAug, GPA, 0, { r8: page }).rax).toBe(0n);
    expect(pair.usedPages).toBe(before + 1);
    const unpaired = BigInt(4 * GIB + 64 * MIB);
    expect(t.on(TDH.memPageAug, GPA + PAGE_4K, 0, { r8: unpaired }).rax).toBe(
      STATUS.TDX_MISSING_PAMT_PAGE_PAIR | 8n,
    );
    expect(t.on(TDH.memPageAug, GPA + PAGE_4K, 0, { r8: BigInt(4 * GIB) }).rax).toBe(
      STATUS.TDX_MISSING_PAMT_PAGE_PAIR | 8n,
    );
  });
});
