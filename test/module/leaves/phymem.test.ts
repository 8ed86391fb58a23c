import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { LEVEL_1G, LEVEL_2M, LEVEL_4K, PAGE_TYPE } from '../../../src/abi/page-types.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { HKID_STATE } from '../../../src/module/kot.ts';
import { INTR_PENDING_MSR } from '../../../src/module/pending-events.ts';
import { GLOBAL_KEYID, readyModule } from '../../support/ready-module.ts';

const PAGE = 4 * GIB + 16 * MIB;
const RANGE = 4 * GIB + 32 * MIB;
const RESERVED = 4 * GIB + 512 * MIB;
const invalid = (operand: bigint): bigint => STATUS.TDX_OPERAND_INVALID | operand;
const outOfRange = (operand: bigint): bigint => STATUS.TDX_OPERAND_ADDR_RANGE_ERROR | operand;
const at = (address: number, level = 0): bigint => BigInt(address) | BigInt(level);

describe('TDH.PHYMEM.PAGE.RDMD', () => {
  it('reports type, owner, size and epoch', () => {
    const host = readyModule();
    const entry = host.module.pamt.entry(PAGE, LEVEL_4K);
    entry.type = PAGE_TYPE.REG;
    entry.owner = 4 * GIB;
    entry.bepoch = 9n;
    expect(host.call(TDH.phymemPageRdmd, { rcx: at(PAGE), r10: 5n, r11: 5n, r12: 6n })).toEqual({
      rax: 0n,
      rcx: BigInt(PAGE_TYPE.REG),
      rdx: BigInt(4 * GIB),
      r9: 9n,
      r12: 6n,
    });
    entry.type = PAGE_TYPE.TDCX;
    expect(host.call(TDH.phymemPageRdmd, { rcx: at(PAGE) })).toEqual({
      rax: 0n,
      rcx: 5n,
      rdx: BigInt(4 * GIB),
    });
    expect(host.call(TDH.phymemPageRdmd, { rcx: at(RESERVED) })).toEqual({ rax: 0n, rcx: 1n });
    host.module.pamt.entry(RANGE, LEVEL_2M).type = PAGE_TYPE.REG;
    expect(host.call(TDH.phymemPageRdmd, { rcx: at(RANGE + PAGE_4K) })).toEqual({ rax: 0n, rcx: 3n, r8: 1n });
  });

  it('refuses what is no page of a TDMR', () => {
    const host = readyModule();
    const status = (rcx: bigint): bigint => host.status(TDH.phymemPageRdmd, { rcx });
    expect(status(at(PAGE) + 64n)).toBe(invalid(1n));
    expect(status(at(PAGE, LEVEL_2M))).toBe(invalid(1n));
    expect(status(at(PAGE) | (33n << 46n))).toBe(invalid(1n));
    expect(status(1n << 52n)).toBe(invalid(1n));
    expect(status(at(6 * GIB))).toBe(outOfRange(1n));
    host.module.pamt.entry(PAGE, LEVEL_2M).lockWord = 1;
    expect(status(at(PAGE))).toBe(STATUS.TDX_OPERAND_BUSY | 1n);
  });

  it('takes a level with dynamic PAMT', () => {
    const host = readyModule({ dynamicPamt: true });
    const status = (rcx: bigint): bigint => host.status(TDH.phymemPageRdmd, { rcx });
    expect(status(at(RANGE, LEVEL_2M))).toBe(0n);
    expect(status(at(RANGE + PAGE_4K, LEVEL_2M))).toBe(invalid(1n));
    expect(status(at(4 * GIB, LEVEL_1G))).toBe(0n);
    expect(status(at(4 * GIB, 3))).toBe(invalid(1n));
    expect(status(at(RANGE, LEVEL_2M) | 0x800n)).toBe(invalid(1n));
  });
});

describe('TDH.PHYMEM.PAGE.WBINVD', () => {
  it('flushes free pages under any KeyID', () => {
    const host = readyModule();
    const { cache } = host.machine.packages[0]!;
    cache.markDirty(PAGE, 64, 41);
    expect(host.status(TDH.phymemPageWbinvd, { rcx: at(PAGE) | (41n << 46n) })).toBe(0n);
    expect(cache.dirtyPages).toBe(0);
  });

  it('refuses pages in use and addresses that are none', () => {
    const host = readyModule();
    const status = (rcx: bigint): bigint => host.status(TDH.phymemPageWbinvd, { rcx });
    host.module.pamt.entry(PAGE, LEVEL_4K).type = PAGE_TYPE.TDR;
    expect(status(at(PAGE))).toBe(STATUS.TDX_PAGE_METADATA_INCORRECT | 1n);
    expect(status(at(RESERVED))).toBe(STATUS.TDX_PAGE_METADATA_INCORRECT | 1n);
    expect(status(at(PAGE) + 1n)).toBe(invalid(1n));
    expect(status(at(6 * GIB))).toBe(outOfRange(1n));
  });
});

describe('TDH.PHYMEM.CACHE.WB', () => {
  const KEYID = 35;

  function flushed() {
    const host = readyModule();
    host.module.kot.states[KEYID] = HKID_STATE.FLUSHED;
    host.module.kot.pendingPackages[KEYID] = 0b11;
    return host;
  }

  it('marks flushed KeyIDs as written back on the package of the caller', () => {
    const host = flushed();
    expect(host.status(TDH.phymemCacheWb, {}, 3)).toBe(0n);
    expect(host.module.kot.pendingPackages[KEYID]).toBe(0b01);
    expect(host.status(TDH.phymemCacheWb, {}, 0)).toBe(0n);
    expect(host.module.kot.pendingPackages[KEYID]).toBe(0);
  });

  it('writes back the caches of that package', () => {
    const host = flushed();
    const { lps, packages } = host.machine;
    const dirty = (): number[] => packages.map(({ cache }) => cache.dirtyPages);
    lps[0]!.store(7 * GIB, Uint8Array.of(1));
    lps[3]!.store(8 * GIB, Uint8Array.of(1));
    expect(dirty()).toEqual([1, 1]);
    expect(host.status(TDH.phymemCacheWb, {}, 3)).toBe(0n);
    expect(dirty()).toEqual([1, 0]);
  });

  it('is interrupted by events and resumed, for the KeyIDs of its beginning only', () => {
    const host = flushed();
    const lp = host.machine.lps[0]!;
    lp.wrmsr(INTR_PENDING_MSR, 1n);
    expect(host.status(TDH.phymemCacheWb)).toBe(STATUS.TDX_INTERRUPTED_RESUMABLE);
    expect(host.module.writeBack[0]!.interruptedAt).toBe(1);
    host.module.kot.states[36] = HKID_STATE.FLUSHED;
    host.module.kot.pendingPackages[36] = 0b11;
    lp.wrmsr(INTR_PENDING_MSR, 0n);
    expect(host.status(TDH.phymemCacheWb, { rcx: 1n })).toBe(0n);
    expect([...host.module.kot.pendingPackages.subarray(35, 37)]).toEqual([0b10, 0b11]);
    expect(host.status(TDH.phymemCacheWb, { rcx: 1n })).toBe(STATUS.TDX_WBCACHE_RESUME_ERROR);
  });

  it('refuses other commands, held locks, and says when there is nothing to do', () => {
    const host = flushed();
    expect(host.status(TDH.phymemCacheWb, { rcx: 2n })).toBe(invalid(1n));
    host.module.writeBack[0]!.lock.word = 1;
    expect(host.status(TDH.phymemCacheWb)).toBe(STATUS.TDX_OPERAND_BUSY | 188n);
    host.module.writeBack[0]!.lock.word = 0;
    host.module.kot.lock.word = 1;
    expect(host.status(TDH.phymemCacheWb)).toBe(STATUS.TDX_OPERAND_BUSY | 186n);
    expect(readyModule().status(TDH.phymemCacheWb)).toBe(STATUS.TDX_NO_HKID_READY_TO_WBCACHE);
  });
});

describe('TDH.PHYMEM.PAMT.ADD and REMOVE', () => {
  const PAIR = { rdx: at(PAGE), r8: at(PAGE + PAGE_4K) };
  const ADD = { rcx: at(RANGE, LEVEL_2M), ...PAIR };

  it('lend a page pair and give it back', () => {
    const host = readyModule({ dynamicPamt: true });
    expect(host.status(TDH.phymemPamtAdd, ADD)).toBe(0n);
    expect(host.machine.memory.ownerAt(PAGE)).toBe(GLOBAL_KEYID);
    expect(host.call(TDH.phymemPageRdmd, { rcx: at(RANGE, LEVEL_2M) })).toEqual({
      rax: 0n,
      rcx: (1n << 63n) | 15n,
      r8: 1n,
      r10: PAIR.rdx,
      r11: PAIR.r8,
    });
    expect(host.call(TDH.phymemPageRdmd, { rcx: PAIR.rdx })).toEqual({ rax: 0n, rcx: 15n });
    expect(host.status(TDH.phymemPageWbinvd, { rcx: PAIR.rdx })).toBe(
      STATUS.TDX_PAGE_METADATA_INCORRECT | 1n,
    );
    expect(host.call(TDH.phymemPamtRemove, { rcx: ADD.rcx })).toEqual({ rax: 0n, rcx: ADD.rcx, ...PAIR });
    expect(host.status(TDH.phymemPageWbinvd, { rcx: PAIR.rdx })).toBe(0n);
  });

  it('may take the pair from the range itself', () => {
    const host = readyModule({ dynamicPamt: true });
    const own = { rcx: ADD.rcx, rdx: at(RANGE), r8: at(RANGE + PAGE_2M - PAGE_4K) };
    expect(host.status(TDH.phymemPamtAdd, own)).toBe(0n);
    expect(host.module.pamt.entry(RANGE, LEVEL_4K).type).toBe(PAGE_TYPE.NDA);
    expect(host.module.pamt.block(RANGE)!.isLent(RANGE)).toBe(true);
  });

  it('do not exist for static PAMT', () => {
    expect(readyModule().status(TDH.phymemPamtAdd, ADD)).toBe(invalid(0n));
    expect(readyModule().status(TDH.phymemPamtRemove, ADD)).toBe(invalid(0n));
  });

  it('check operands in the order of the ABI', () => {
    const host = readyModule({ dynamicPamt: true });
    const add = (change: object): bigint => host.status(TDH.phymemPamtAdd, { ...ADD, ...change });
    expect(add({ rcx: at(RANGE) })).toBe(invalid(1n));
    expect(add({ rcx: at(RANGE + PAGE_4K, LEVEL_2M) })).toBe(invalid(1n));
    expect(add({ rdx: PAIR.rdx + 1n, r8: 1n })).toBe(invalid(2n));
    expect(add({ rdx: at(6 * GIB), r8: 1n })).toBe(outOfRange(2n));
    expect(add({ r8: 1n })).toBe(invalid(8n));
    expect(add({ rcx: at(6 * GIB, LEVEL_2M) })).toBe(outOfRange(1n));
    expect(add({ rdx: at(RESERVED) })).toBe(STATUS.TDX_PAGE_NOT_FREE | 2n);
    expect(add({ r8: PAIR.rdx })).toBe(STATUS.TDX_PAGE_NOT_FREE | 8n);
    expect(add({})).toBe(0n);
    expect(add({ rdx: at(PAGE + MIB) })).toBe(STATUS.TDX_HPA_RANGE_NOT_FREE | 1n);
  });

  it('keep a pair whose entries are in use', () => {
    const host = readyModule({ dynamicPamt: true });
    const remove = (): bigint => host.status(TDH.phymemPamtRemove, { rcx: ADD.rcx });
    expect(remove()).toBe(STATUS.TDX_NO_PAMT_PAGE_PAIR | 1n);
    host.status(TDH.phymemPamtAdd, ADD);
    const upperHalf = host.module.pamt.entry(RANGE + MIB, LEVEL_4K);
    upperHalf.type = PAGE_TYPE.REG;
    expect(remove()).toBe(STATUS.TDX_PAMT_PAGE_NOT_EMPTY | 1n);
    host.module.pamt.entry(RANGE, LEVEL_4K).type = PAGE_TYPE.REG;
    expect(remove()).toBe(STATUS.TDX_PAMT_PAGE_NOT_EMPTY);
  });
});
