import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { LEVEL_4K } from '../../../src/abi/page-types.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { TDCS } from '../../../src/module/td/layout.ts';
import { FREE_GIB, type ReadyTd, readyTd } from '../../support/ready-td.ts';

const GPA = 0x20_0000;
const NOT_DONE = STATUS.TDX_TLB_TRACKING_NOT_DONE | 1n;
/** RDX of entry details: state and level. */
const details = (state: number, level = 0): bigint => BigInt((state << 8) | level);
const stateOf = (t: ReadyTd, gpa: number, level = 0): bigint =>
  (t.on(TDH.memSeptRd, gpa, level).rdx ?? 0n) >> 8n;
const track = (t: ReadyTd): bigint => t.status(TDH.memTrack, { rcx: t.tdr });

function withPage(options: Parameters<typeof readyTd>[0] = { runnable: true }): ReadyTd & { hpa: bigint } {
  const t = readyTd(options);
  t.addTables(GPA, 0);
  const hpa = t.page();
  expect(t.on(TDH.memPageAug, GPA, 0, { r8: hpa }).rax).toBe(0n);
  return { ...t, hpa };
}

describe('TDH.MEM.RANGE.BLOCK', () => {
  it('blocks pages and whole ranges, and notes the epoch', () => {
    const t = withPage();
    expect(t.on(TDH.memRangeBlock, GPA)).toEqual({ rax: 0n });
    expect(stateOf(t, GPA)).toBe(3n);
    expect(t.module.pamt.entry(Number(t.hpa), LEVEL_4K).bepoch).toBe(1n);
    expect(t.on(TDH.memRangeBlock, GPA, 1)).toEqual({ rax: 0n });
    expect(t.on(TDH.memSeptRd, GPA, 1)).toEqual({ rax: 0n, rdx: details(0x81, 1) });
    expect(t.on(TDH.memSeptRd, GPA).rax).toBe(STATUS.TDX_EPT_WALK_FAILED | 1n);
    expect(t.on(TDH.memRangeBlock, 0, 3)).toEqual({ rax: 0n });
  });

  it('says so when there is nothing to block', () => {
    const t = withPage();
    const again = { rax: STATUS.TDX_GPA_RANGE_ALREADY_BLOCKED | 1n, rcx: (1n << 63n) | t.hpa | 0xf0n };
    t.on(TDH.memRangeBlock, GPA);
    expect(t.on(TDH.memRangeBlock, GPA)).toEqual({ ...again, rdx: details(3) });
    expect(t.on(TDH.memRangeBlock, GPA + PAGE_4K)).toEqual({
      rax: STATUS.TDX_EPT_ENTRY_STATE_INCORRECT | 1n,
      rcx: 1n << 63n,
    });
    expect(t.on(TDH.memRangeBlock, GPA, 4).rax).toBe(STATUS.TDX_OPERAND_INVALID | 1n);
  });

  it('needs the tree for itself', () => {
    const t = withPage();
    t.td.tdcs.setU16(TDCS.SEPT_TREE_LOCK, 4);
    expect(t.on(TDH.memRangeBlock, GPA).rax).toBe(STATUS.TDX_OPERAND_BUSY | 146n);
    expect(t.td.tdcs.u16(TDCS.SEPT_TREE_LOCK)).toBe(4 | 2);
    expect(t.on(TDH.memSeptRd, GPA).rax).toBe(0n);
    expect(t.td.tdcs.u16(TDCS.SEPT_TREE_LOCK)).toBe(4);
  });
});

describe('TDH.MEM.RANGE.UNBLOCK', () => {
  it('puts a tracked range back as it was', () => {
    const t = withPage();
    t.on(TDH.memRangeBlock, GPA);
    t.on(TDH.memRangeBlock, GPA, 1);
    expect(t.on(TDH.memRangeUnblock, GPA, 1)).toEqual({ rax: NOT_DONE });
    expect(track(t)).toBe(0n);
    expect(t.on(TDH.memRangeUnblock, GPA, 1)).toEqual({ rax: 0n });
    expect(t.on(TDH.memSeptRd, GPA, 1)).toEqual({ rax: 0n, rcx: 0x407n, rdx: details(0x84, 1) });
    expect(t.on(TDH.memRangeUnblock, GPA)).toEqual({ rax: 0n });
    expect(stateOf(t, GPA)).toBe(2n);
    expect(t.on(TDH.memRangeUnblock, GPA)).toMatchObject({
      rax: STATUS.TDX_EPT_ENTRY_STATE_INCORRECT | 1n,
      rdx: details(2),
    });
  });

  it('needs no tracking while the TD cannot run', () => {
    const t = withPage({});
    t.on(TDH.memRangeBlock, GPA);
    expect(t.on(TDH.memRangeUnblock, GPA)).toEqual({ rax: 0n });
  });
});

describe('TDH.MEM.TRACK', () => {
  it('begins the next epoch and leaves registers alone', () => {
    const t = withPage();
    expect(t.call(TDH.memTrack, { rcx: t.tdr, rdx: 9n })).toEqual({ rax: 0n, rcx: t.tdr, rdx: 9n });
    expect(t.td.tdcs.u64(TDCS.TD_EPOCH)).toBe(2n);
  });

  it('waits for vCPUs that run in the epoch before', () => {
    const t = withPage();
    const { tdcs } = t.td;
    t.on(TDH.memRangeBlock, GPA);
    // Blocked in epoch 1; one vCPU was entered in it.
    tdcs.setU16(TDCS.REFCOUNT + 2, 1);
    expect(track(t)).toBe(0n);
    expect(t.on(TDH.memPageRemove, GPA)).toEqual({ rax: NOT_DONE });
    expect(track(t)).toBe(STATUS.TDX_PREVIOUS_TLB_EPOCH_BUSY);
    tdcs.setU16(TDCS.REFCOUNT, 1);
    tdcs.setU16(TDCS.REFCOUNT + 2, 0);
    expect(t.on(TDH.memPageRemove, GPA)).toEqual({ rax: 0n, rcx: t.hpa });
    expect(track(t)).toBe(0n);
    expect(track(t)).toBe(STATUS.TDX_PREVIOUS_TLB_EPOCH_BUSY);
  });

  it('meets the epoch in use', () => {
    const t = withPage();
    for (const word of [1, 2]) {
      t.td.tdcs.setU16(TDCS.EPOCH_LOCK, word);
      expect(track(t)).toBe(STATUS.TDX_OPERAND_BUSY | 169n);
    }
    expect(t.status(TDH.memTrack, { rcx: t.tdr + 1n })).toBe(STATUS.TDX_OPERAND_INVALID | 1n);
    expect(t.status(TDH.memTrack, { rcx: BigInt(FREE_GIB) })).toBe(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR | 1n);
  });
});
