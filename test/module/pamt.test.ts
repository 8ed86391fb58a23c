import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_2M, PAGE_4K } from '../../src/abi/address.ts';
import { LEVEL_1G, LEVEL_2M, LEVEL_4K, PAGE_TYPE } from '../../src/abi/page-types.ts';
import { STATUS } from '../../src/abi/status-codes.ts';
import { MachineCheck } from '../../src/machine/exceptions.ts';
import { PhysicalMemory } from '../../src/machine/memory.ts';
import { Pamt } from '../../src/module/pamt.ts';
import { demotePamt, promotePamt } from '../../src/module/pamt-resize.ts';
import type { PamtWalk } from '../../src/module/pamt-walk.ts';
import { Tdmr } from '../../src/module/tdmr-table.ts';

const KEYID = 40;
const BASE = 4 * GIB;
const OWNER = BASE + 7 * PAGE_4K;

function createPamt(options: { dynamic?: boolean; initialised?: boolean } = {}) {
  const memory = new PhysicalMemory({
    present: () => true,
    isPrivateKeyId: (keyId) => keyId >= 32,
    partialWriteErratum: false,
  });
  const reserved = [{ start: BASE + 3 * MIB, end: BASE + 5 * MIB }];
  const areas = { base1g: 8 * GIB, base2m: 8 * GIB + MIB, base4k: 8 * GIB + 16 * MIB };
  const tdmr = new Tdmr(BASE, 2 * GIB, areas, reserved);
  const pamt = new Pamt(memory, [tdmr], KEYID, options.dynamic ?? false);
  while (options.initialised !== false && tdmr.nextToInit < tdmr.end) pamt.initialiseStep(tdmr);
  return { memory, tdmr, pamt };
}

function walk(pamt: Pamt, ...way: Parameters<Pamt['walk']>): PamtWalk {
  const found = pamt.walk(...way);
  if (found === undefined || typeof found === 'bigint') throw new Error(`the walk failed: ${found}`);
  return found;
}

describe('initialisation', () => {
  it('takes 256 steps per GiB, and makes a block usable when it is complete', () => {
    const { pamt, tdmr } = createPamt({ initialised: false });
    for (let step = 0; step < 255; step++) pamt.initialiseStep(tdmr);
    expect(pamt.block(BASE)).toBeUndefined();
    pamt.initialiseStep(tdmr);
    expect(tdmr.usableEnd).toBe(BASE + GIB);
    expect(pamt.block(BASE + GIB - PAGE_4K)).toBeDefined();
    expect(pamt.block(BASE + GIB)).toBeUndefined();
  });

  it('takes 64 steps per GiB with dynamic PAMT', () => {
    const { pamt, tdmr } = createPamt({ dynamic: true, initialised: false });
    for (let step = 0; step < 64; step++) pamt.initialiseStep(tdmr);
    expect(tdmr.usableEnd).toBe(BASE + GIB);
  });

  it('takes over the memory that holds the table, and keeps nothing else until somebody looks', () => {
    const { memory, pamt } = createPamt();
    expect(memory.claimedRanges()).toEqual([
      { start: 8 * GIB, end: 8 * GIB + PAGE_4K, keyId: KEYID },
      { start: 8 * GIB + MIB, end: 8 * GIB + MIB + 4 * PAGE_4K, keyId: KEYID },
      { start: 8 * GIB + 16 * MIB, end: 8 * GIB + 24 * MIB, keyId: KEYID },
    ]);
    expect(pamt.blocksInUse).toBe(0);
  });

  it('takes over a bitmap of one bit per page with dynamic PAMT', () => {
    const { memory } = createPamt({ dynamic: true });
    expect(memory.ownerAt(8 * GIB + 16 * MIB + 64 * 1024 - 1)).toBe(KEYID);
    expect(memory.ownerAt(8 * GIB + 16 * MIB + 64 * 1024)).toBe(0);
  });

  it('marks reserved areas, and forgets old entries when it is done again', () => {
    const { memory, pamt, tdmr } = createPamt();
    const typeAt = (address: number): number => pamt.entry(address, LEVEL_4K).type;
    expect([2, 3, 4, 5].map((mib) => typeAt(BASE + mib * MIB))).toEqual([0, 1, 1, 0]);
    pamt.entry(BASE, LEVEL_4K).type = PAGE_TYPE.TDR;
    const again = new Tdmr(
      BASE,
      2 * GIB,
      { base1g: 8 * GIB, base2m: 9 * GIB, base4k: 10 * GIB },
      tdmr.reserved,
    );
    const fresh = new Pamt(memory, [again], KEYID, false);
    while (again.nextToInit < again.end) fresh.initialiseStep(again);
    expect(fresh.entry(BASE, LEVEL_4K).type).toBe(PAGE_TYPE.NDA);
  });

  it('survives the module image: another table on the same memory finds the entries', () => {
    const { memory, pamt, tdmr } = createPamt();
    pamt.entry(BASE, LEVEL_4K).type = PAGE_TYPE.TDR;
    expect(new Pamt(memory, [tdmr], KEYID, false).entry(BASE, LEVEL_4K).type).toBe(PAGE_TYPE.TDR);
  });
});

describe('walk', () => {
  it('stops at the level asked for, or where a larger page answers', () => {
    const { pamt } = createPamt();
    expect(walk(pamt, BASE, 'shared').level).toBe(LEVEL_4K);
    expect(walk(pamt, BASE, 'shared', LEVEL_2M).level).toBe(LEVEL_2M);
    pamt.entry(BASE + 8 * MIB, LEVEL_2M).type = PAGE_TYPE.REG;
    expect(walk(pamt, BASE + 8 * MIB + PAGE_4K, 'shared').level).toBe(LEVEL_2M);
    expect(pamt.walk(BASE - PAGE_4K, 'shared')).toBeUndefined();
  });

  it('locks the way shared and the target as asked, and releases all of it', () => {
    const { pamt } = createPamt();
    const held = walk(pamt, BASE, 'exclusive');
    expect(pamt.walk(BASE, 'shared', LEVEL_4K, true)).toBe(STATUS.TDX_OPERAND_BUSY);
    expect(pamt.walk(BASE, 'exclusive', LEVEL_2M)).toBe(STATUS.TDX_OPERAND_BUSY);
    const other = walk(pamt, BASE + PAGE_4K, 'exclusive');
    held.release();
    other.release();
    const large = walk(pamt, BASE, 'exclusive', LEVEL_1G);
    expect(pamt.walk(BASE, 'shared')).toBe(STATUS.TDX_OPERAND_BUSY);
    large.release();
    walk(pamt, BASE, 'exclusive', LEVEL_2M).release();
  });

  it('is a machine check where the host wrote over the table', () => {
    const { memory, pamt } = createPamt();
    walk(pamt, BASE + PAGE_4K, 'shared').release();
    memory.write(8 * GIB + 16 * MIB + 16, new Uint8Array(8), 0);
    expect(() => pamt.walk(BASE + PAGE_4K, 'shared')).toThrow(MachineCheck);
    walk(pamt, BASE + MIB, 'shared').release();
  });

  it('leaves nothing locked when it fails', () => {
    const { pamt } = createPamt();
    pamt.entry(BASE, LEVEL_4K).lockWord = 1;
    expect(pamt.walk(BASE, 'shared', LEVEL_4K, true)).toBe(STATUS.TDX_OPERAND_BUSY);
    pamt.entry(BASE, LEVEL_4K).lockWord = 0;
    walk(pamt, BASE, 'exclusive', LEVEL_1G).release();
  });
});

describe('promotion and demotion', () => {
  function fill(pamt: Pamt): void {
    for (let page = 0; page < 512; page++) {
      const entry = pamt.entry(BASE + 8 * MIB + page * PAGE_4K, LEVEL_4K);
      entry.type = PAGE_TYPE.REG;
      entry.owner = OWNER;
    }
  }

  it('makes one page of 512 and 512 of one', () => {
    const { pamt } = createPamt();
    fill(pamt);
    expect(promotePamt(pamt, BASE + 8 * MIB, LEVEL_2M)).toBeNull();
    const large = pamt.entry(BASE + 8 * MIB, LEVEL_2M);
    expect([large.type, large.owner]).toEqual([PAGE_TYPE.REG, OWNER]);
    expect(pamt.block(BASE)!.is2mRangeFree(BASE + 8 * MIB)).toBe(true);
    expect(demotePamt(pamt, BASE + 8 * MIB, LEVEL_2M, [undefined, undefined])).toBe(0n);
    expect(large.type).toBe(PAGE_TYPE.NDA);
    const last = pamt.entry(BASE + 10 * MIB - PAGE_4K, LEVEL_4K);
    expect([last.type, last.owner, last.bepoch]).toEqual([PAGE_TYPE.REG, OWNER, 0n]);
  });

  it('gives the page pair back and takes another with dynamic PAMT', () => {
    const { memory, pamt } = createPamt({ dynamic: true });
    const pair = [BASE + 16 * MIB, BASE + 16 * MIB + PAGE_4K] as const;
    expect(pamt.lendPair(...pair)).toBeUndefined();
    expect(memory.ownerAt(pair[0])).toBe(KEYID);
    pamt.entry(BASE + 8 * MIB, LEVEL_2M).setPagePair(...pair, 512);
    fill(pamt);
    expect(promotePamt(pamt, BASE + 8 * MIB, LEVEL_2M)).toEqual(pair);
    expect(pamt.block(BASE)!.isLent(pair[0])).toBe(false);
    expect(demotePamt(pamt, BASE + 8 * MIB, LEVEL_2M, [undefined, pair[1]])).toBe(
      STATUS.TDX_OPERAND_INVALID | 12n,
    );
    expect(demotePamt(pamt, BASE + 8 * MIB, LEVEL_2M, [pair[0], pair[0]])).toBe(
      STATUS.TDX_PAGE_NOT_FREE | 13n,
    );
    expect(demotePamt(pamt, BASE + 8 * MIB, LEVEL_2M, pair)).toBe(0n);
    const node = pamt.entry(BASE + 8 * MIB, LEVEL_2M);
    expect([node.type, node.pagePair, node.usedPages]).toEqual([PAGE_TYPE.PAMT, [...pair], 512]);
    expect(pamt.entry(BASE + 8 * MIB, LEVEL_4K).owner).toBe(OWNER);
  });

  it('is busy while the entry is locked', () => {
    const { pamt } = createPamt();
    const held = walk(pamt, BASE + PAGE_2M, 'shared', LEVEL_2M);
    expect(promotePamt(pamt, BASE + PAGE_2M, LEVEL_2M)).toBe(STATUS.TDX_OPERAND_BUSY);
    expect(demotePamt(pamt, BASE + PAGE_2M, LEVEL_2M, [undefined, undefined])).toBe(
      STATUS.TDX_OPERAND_BUSY | 1n,
    );
    held.release();
  });
});
