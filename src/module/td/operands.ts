/** The checks that most host leaves begin with (module facts 2). Each returns what it found, or the status to return. */
import { isAligned, PAGE_4K } from '../../abi/address.ts';
import { OPERAND } from '../../abi/operands.ts';
import {
  LEVEL_2M,
  LEVEL_4K,
  PAGE_SIZES,
  PAGE_TYPE,
  type PageLevel,
  type PageType,
} from '../../abi/page-types.ts';
import type { Registers } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LockMode } from '../locks.ts';
import type { PamtWalk } from '../pamt-walk.ts';
import type { PlatformSnapshot } from '../platform.ts';
import type { TdxModule } from '../tdx-module.ts';
import { type Held, lockField } from './held.ts';
import { LIFECYCLE, TDCS, TDCS_PAGES_MIN, TDR } from './layout.ts';
import { ALLOWED_BY_HOST_LEAF, isOpStateIn, type StatesByLeaf } from './op-state.ts';
import { type TrustDomain, trustDomainAt } from './trust-domain.ts';

const TWO_32 = 0x1_0000_0000;
const BITS_OF_HALF = 32;
const FATAL = 1n << 61n;
/** Halves of a 64-bit operand from here on have bits above the widest physical address, 52 bits. */
const HIGH_LIMIT = 0x10_0000;
const PAGE_OFFSET = 0xfff;

/**
 * The physical address in a 64-bit operand, or undefined when it is not a multiple of `align`, has a KeyID, or is
 * wider than 52 bits.
 * @public
 */
export function plainHpa(
  platform: PlatformSnapshot,
  low: number,
  high: number,
  align = PAGE_4K,
): number | undefined {
  const { hkidStartBit, maxPa } = platform;
  const keyIdBits = (1 << (maxPa - hkidStartBit)) - 1;
  const keyId = (high >>> (hkidStartBit - BITS_OF_HALF)) & keyIdBits;
  if (high >= HIGH_LIMIT || keyId !== 0 || (low & (align - 1)) !== 0) return undefined;
  return high * TWO_32 + low;
}

/**
 * Locks the page in register `operand`, which must be of type `type` at `level`. Returns the walk with its locks
 * held until the leaf ends, or the status.
 * @public
 */
export function lockPage(
  module: TdxModule,
  held: Held,
  regs: Registers,
  operand: number,
  mode: LockMode,
  type: PageType,
  level: PageLevel = LEVEL_4K,
): LockedPage | bigint {
  const { d } = regs;
  const address = plainHpa(module.platform!, d[2 * operand]!, d[2 * operand + 1]!, PAGE_SIZES[level]);
  if (address === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, operand);
  return lockPageAt(module, held, address, operand, mode, type, level);
}

/** A page with its metadata entry locked. @public */
export interface LockedPage {
  readonly address: number;
  readonly walk: PamtWalk;
}

/** `lockPage` for an address that was taken out of a register with other fields. @public */
export function lockPageAt(
  module: TdxModule,
  held: Held,
  address: number,
  operand: number,
  mode: LockMode,
  type: PageType,
  level: PageLevel = LEVEL_4K,
): LockedPage | bigint {
  const walk = module.pamt.walk(address, mode, level);
  if (walk === undefined) return withOperand(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, operand);
  if (typeof walk === 'bigint') return withOperand(walk, operand);
  const status = checkMetadata(module, walk, address, type, level);
  if (status !== STATUS.TDX_SUCCESS) {
    walk.release();
    return withOperand(status, operand);
  }
  held.add(walk);
  return { address, walk };
}

function checkMetadata(
  module: TdxModule,
  walk: PamtWalk,
  address: number,
  type: PageType,
  level: PageLevel,
): bigint {
  const { pamt } = module;
  if (walk.level !== level) {
    const pairIsMissing =
      pamt.dynamic && walk.level === LEVEL_2M && walk.entry.type === PAGE_TYPE.NDA && type === PAGE_TYPE.NDA;
    return pairIsMissing ? STATUS.TDX_MISSING_PAMT_PAGE_PAIR : STATUS.TDX_PAGE_METADATA_INCORRECT;
  }
  if (walk.entry.type !== type) return STATUS.TDX_PAGE_METADATA_INCORRECT;
  if (type === PAGE_TYPE.NDA && walk.block.isLent(address)) return STATUS.TDX_PAGE_METADATA_INCORRECT;
  return STATUS.TDX_SUCCESS;
}

/** Gives a locked free page to a TD as `type`. A TDR has no owner: 0. @public */
export function givePage({ walk }: LockedPage, type: PageType, owner: number): void {
  walk.entry.type = type;
  walk.entry.owner = owner;
  if (walk.parent?.type === PAGE_TYPE.PAMT) walk.parent.usedPages++;
}

/** Bit 62 of an output: with dynamic PAMT, no page of the 2 MiB range is in use and its page pair can be removed. */
const PAIR_UNUSED = 1n << 62n;

/** Makes a locked page free again. Returns the hint about the pair of pages that hold its metadata, or 0. @public */
export function takePage({ entry, parent }: Pick<PamtWalk, 'entry' | 'parent'>): bigint {
  entry.type = PAGE_TYPE.NDA;
  if (parent?.type !== PAGE_TYPE.PAMT) return 0n;
  parent.usedPages--;
  return parent.usedPages === 0 ? PAIR_UNUSED : 0n;
}

/** True when `address` is that of a whole page of `level`. @public */
export function pageIsMultipleOf(address: number, level: PageLevel): boolean {
  return isAligned(address, PAGE_SIZES[level]);
}

/** Locks the TDR in register `operand`. @public */
export function lockTdr(
  module: TdxModule,
  held: Held,
  regs: Registers,
  operand: number,
  mode: LockMode,
): TrustDomain | bigint {
  const page = lockPage(module, held, regs, operand, mode, PAGE_TYPE.TDR);
  return typeof page === 'bigint' ? page : trustDomainAt(module, page.address);
}

/** A TDR's handle with `flags` allowed in its bits 11:0; the other bits outside the address must be zero. @public */
export function lockTdrWithFlags(
  module: TdxModule,
  held: Held,
  low: number,
  high: number,
  mode: LockMode,
  flags: number,
): { readonly td: TrustDomain; readonly flags: number } | bigint {
  const below = low & PAGE_OFFSET;
  if ((below & ~flags) !== 0) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  const address = plainHpa(module.platform!, low - below, high);
  if (address === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  const page = lockPageAt(module, held, address, OPERAND.RDX, mode, PAGE_TYPE.TDR);
  return typeof page === 'bigint' ? page : { td: trustDomainAt(module, page.address), flags: below & flags };
}

/** Locks the TDR at `address`, which the module knows of from another page's owner. @public */
export function lockImplicitTdr(
  module: TdxModule,
  held: Held,
  address: number,
  mode: LockMode,
): TrustDomain | bigint {
  const entry = module.pamt.entry(address, LEVEL_4K);
  const status = entry.tryLock(mode);
  if (status !== STATUS.TDX_SUCCESS) return withOperand(status, OPERAND.TDR);
  held.add({ release: () => entry.unlock(mode) });
  return trustDomainAt(module, address);
}

/** True once the TD has its keys and the pages of its TDCS; else the status that says what is missing. @public */
export function checkBuildState(td: TrustDomain): bigint {
  if (td.tdr.flag(TDR.FATAL)) return STATUS.TDX_TD_FATAL | FATAL;
  if (td.tdr.u32(TDR.LIFECYCLE_STATE) !== LIFECYCLE.KEYS_CONFIGURED) return STATUS.TDX_TD_KEYS_NOT_CONFIGURED;
  if (td.tdr.u32(TDR.NUM_TDCX) < TDCS_PAGES_MIN) return STATUS.TDX_TDCS_NOT_ALLOCATED;
  return STATUS.TDX_SUCCESS;
}

/**
 * Checks that `td` is built far enough and in an operation state that `allowed` has for `leaf`, and locks that
 * state when `mode` is given. Returns TDX_SUCCESS or the status.
 * @public
 */
export function enterOpState(
  held: Held,
  td: TrustDomain,
  leaf: number,
  mode?: LockMode,
  allowed: StatesByLeaf = ALLOWED_BY_HOST_LEAF,
): bigint {
  const built = checkBuildState(td);
  if (built !== STATUS.TDX_SUCCESS) return built;
  const { tdcs } = td;
  if (mode !== undefined) {
    const locked = lockField(held, tdcs, TDCS.OP_STATE_LOCK, mode);
    if (locked !== STATUS.TDX_SUCCESS) return withOperand(locked, OPERAND.OP_STATE);
  }
  const state = tdcs.u32(TDCS.OP_STATE);
  return isOpStateIn(allowed, leaf, state)
    ? STATUS.TDX_SUCCESS
    : withOperand(STATUS.TDX_OP_STATE_INCORRECT, state);
}
