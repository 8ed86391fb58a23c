/** Page metadata when 512 pages become one of the next size (PROMOTE) and the other way round (DEMOTE). */
import { PAGE_4K } from '../abi/address.ts';
import { OPERAND } from '../abi/operands.ts';
import { LEVEL_1G, LEVEL_2M, LEVEL_4K, PAGE_TYPE } from '../abi/page-types.ts';
import { withOperand } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import type { Pamt } from './pamt.ts';
import { PAMT_CHILDREN, type PamtBlock } from './pamt-block.ts';
import { type PamtWalk, walkPamt } from './pamt-walk.ts';

/** Sizes above 4 KiB. @public */
export type LargeLevel = typeof LEVEL_2M | typeof LEVEL_1G;

/** Two pages that hold, or held, the 4 KiB entries of a 2 MiB range. @public */
export type PagePair = readonly [first: number, second: number];

/**
 * Makes the 512 pages from `address` on one page at `level`, with type and owner of the first. Returns the page pair
 * that dynamic PAMT sets free, null where there is none, or TDX_OPERAND_BUSY without an operand.
 * @public
 */
export function promotePamt(pamt: Pamt, address: number, level: LargeLevel): PagePair | null | bigint {
  const block = blockOf(pamt, address);
  const entry = block.entry(address, level);
  const locked = entry.tryLock('exclusive');
  if (locked !== STATUS.TDX_SUCCESS) return locked;
  const first = block.entry(address, level === LEVEL_1G ? LEVEL_2M : LEVEL_4K);
  const { type, owner } = first;
  const freed = pamt.dynamic && level === LEVEL_2M ? entry.pagePair : null;
  if (freed === null) block.retypeChildren(address, level, PAGE_TYPE.NDA);
  else {
    for (const page of freed) blockOf(pamt, page).setLent(page, false);
    block.clear4k(address);
  }
  entry.type = type;
  entry.owner = owner;
  if (pamt.dynamic) entry.bepoch = 0n;
  entry.unlock('exclusive');
  return freed;
}

/**
 * Makes the page at `address` and `level` 512 pages of the next smaller size, with its type and owner. With dynamic
 * PAMT a 2 MiB page needs `pair` to hold their entries. Returns TDX_SUCCESS or the status of the leaf, whose operands
 * are RCX for the page and R12, R13 for the pair.
 * @public
 */
export function demotePamt(pamt: Pamt, address: number, level: LargeLevel, pair: PairOperand): bigint {
  const block = blockOf(pamt, address);
  const entry = block.entry(address, level);
  const locked = entry.tryLock('exclusive');
  if (locked !== STATUS.TDX_SUCCESS) return withOperand(locked, OPERAND.RCX);
  const { type, owner } = entry;
  let status: bigint = STATUS.TDX_SUCCESS;
  if (pamt.dynamic && level === LEVEL_2M) {
    const lent = lendPair(pamt, pair);
    if (typeof lent === 'bigint') status = lent;
    else {
      block.fillChildren(address, level, type, owner);
      entry.setPagePair(lent[0], lent[1], PAMT_CHILDREN);
    }
  } else {
    block.fillChildren(address, level, type, owner);
    entry.type = PAGE_TYPE.NDA;
  }
  entry.unlock('exclusive');
  return status;
}

/** The pages offered in R12 and R13, undefined where the register holds no plain page address. @public */
export type PairOperand = readonly [first: number | undefined, second: number | undefined];

const OPERANDS = [OPERAND.R12, OPERAND.R13] as const;

/** Checks both pages, one kind of check after the other as the module does, and marks them as lent. */
function lendPair(pamt: Pamt, pair: PairOperand): PagePair | bigint {
  const pages: number[] = [];
  for (const [i, page] of pair.entries()) {
    if (page === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERANDS[i]!);
    pages.push(page);
  }
  for (const [i, page] of pages.entries()) {
    if (pamt.block(page) === undefined) {
      return withOperand(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, OPERANDS[i]!);
    }
  }
  const walks: PamtWalk[] = [];
  try {
    return lendFree(pamt, pages, walks);
  } finally {
    for (const walk of walks.reverse()) walk.release();
  }
}

function lendFree(pamt: Pamt, pages: readonly number[], walks: PamtWalk[]): PagePair | bigint {
  for (const [i, page] of pages.entries()) {
    const walk = walkPamt(blockOf(pamt, page), page, 'shared');
    if (typeof walk === 'bigint') return withOperand(walk, OPERANDS[i]!);
    walks.push(walk);
    if (walk.entry.type !== PAGE_TYPE.NDA) return withOperand(STATUS.TDX_PAGE_NOT_FREE, OPERANDS[i]!);
  }
  const [first, second] = pages as [number, number];
  const taken = pamt.lendPair(first, second);
  if (taken !== undefined) return withOperand(STATUS.TDX_PAGE_NOT_FREE, OPERANDS[taken]);
  return [first, second];
}

function blockOf(pamt: Pamt, address: number): PamtBlock {
  const block = pamt.block(address);
  if (block === undefined) throw new Error(`no page metadata for page ${address / PAGE_4K}`);
  return block;
}
