/** Guest physical addresses as operands of host leaves, and the way to their secure EPT entries (module facts 2). */
import { isAligned, offsetIn } from '../../abi/address.ts';
import { OPERAND } from '../../abi/operands.ts';
import { RCX, type Registers } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LockMode } from '../locks.ts';
import type { ControlStructure } from './control-structure.ts';
import { type Held, lockField } from './held.ts';
import { TDCS } from './layout.ts';
import { putSeptDetails, SEPT_LEVEL_SIZES, type SecureEpt, type SeptPosition } from './sept.ts';
import type { TrustDomain } from './trust-domain.ts';

const TWO_32 = 0x1_0000_0000;
/** Widths of a GPA that GPAW 0 and 1 stand for; the topmost bit says that the page is shared. */
const GPA_WIDTHS = [48, 52] as const;
const MAX_PA = 52;
const LEVEL_MASK = 0b111;
const RESERVED_LOW = 0xff8;
const RESERVED_HIGH = 0x10_0000;
const OPERAND_INVALID_RCX = withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
const SEPT_TREE_BUSY = withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.SEPT_TREE);
const WALK_FAILED_RCX = withOperand(STATUS.TDX_EPT_WALK_FAILED, OPERAND.RCX);

/** A guest page: its address and the level of the entry meant. @public */
export interface GpaOperand {
  readonly gpa: number;
  readonly level: number;
}

/** The GPA and level in RCX, or undefined when malformed, misaligned or outside `[minLevel, maxLevel]`. @public */
export function gpaOperand(
  low: number,
  high: number,
  minLevel: number,
  maxLevel: number,
): GpaOperand | undefined {
  if ((low & RESERVED_LOW) !== 0 || high >= RESERVED_HIGH) return undefined;
  const level = low & LEVEL_MASK;
  if (level < minLevel || level > maxLevel) return undefined;
  const gpa = high * TWO_32 + (low - level);
  return isAligned(gpa, SEPT_LEVEL_SIZES[level]!) ? { gpa, level } : undefined;
}

/** Width in bits of the TD's guest physical addresses. @public */
export function gpaWidth(tdcs: ControlStructure): number {
  return GPA_WIDTHS[tdcs.flag(TDCS.GPAW) ? 1 : 0];
}

/** True when the shared bit of `gpa` is set. @public */
export function isSharedGpa(tdcs: ControlStructure, gpa: number): boolean {
  return offsetIn(Math.floor(gpa / 2 ** (gpaWidth(tdcs) - 1)), 2) === 1;
}

const POWERS_OF_TWO: readonly number[] = Array.from({ length: MAX_PA + 1 }, (_, i) => 2 ** i);

/** End of the TD's private guest physical addresses. @public */
export function privateGpaLimit(tdcs: ControlStructure): number {
  return POWERS_OF_TWO[Math.min(tdcs.u8(TDCS.VIRT_MAXPA) || MAX_PA, gpaWidth(tdcs) - 1)]!;
}

/** True when a GPA below 2^52 is one that the TD can have; with `privateOnly`, and private. @public */
export function isGpaValid(tdcs: ControlStructure, gpa: number, privateOnly: boolean): boolean {
  if (privateOnly) return gpa < privateGpaLimit(tdcs);
  const shared = isSharedGpa(tdcs, gpa);
  const width = gpaWidth(tdcs);
  const plain = shared ? gpa - 2 ** (width - 1) : gpa;
  return plain < 2 ** Math.min(tdcs.u8(TDCS.VIRT_MAXPA) || MAX_PA, width);
}

/** A 64-bit operand as a GPA below 2^52, or undefined. @public */
export function gpaFrom(regs: Registers, register: number): number | undefined {
  const high = regs.d[2 * register + 1]!;
  return high < RESERVED_HIGH ? high * TWO_32 + regs.d[2 * register]! : undefined;
}

/** An entry that a leaf works on, with the tree it is in and the guest address that leads to it. @public */
export interface LocatedEntry extends SeptPosition {
  readonly ept: SecureEpt;
  readonly gpa: number;
}

/** Takes the TD's secure EPT tree lock. TDX_SUCCESS or TDX_OPERAND_BUSY. @public */
export function lockSeptTree(held: Held, td: TrustDomain, mode: LockMode): bigint {
  const status = lockField(held, td.tdcs, TDCS.SEPT_TREE_LOCK, mode);
  return status === STATUS.TDX_SUCCESS ? status : SEPT_TREE_BUSY;
}

/**
 * Finds the entry of a private page, taking the tree lock first when `tree` is given. A walk that ends early puts
 * its details into RCX and RDX.
 * @public
 */
export function locateEntry(
  held: Held,
  td: TrustDomain,
  regs: Registers,
  { gpa, level }: GpaOperand,
  tree?: LockMode,
): LocatedEntry | bigint {
  const ept = td.sept();
  if (gpa >= ept.gpaLimit) return OPERAND_INVALID_RCX;
  if (tree !== undefined) {
    const locked = lockSeptTree(held, td, tree);
    if (locked !== STATUS.TDX_SUCCESS) return locked;
  }
  const position = ept.walk(gpa, level);
  if (position.level !== level) {
    putSeptDetails(regs, ept, position);
    return WALK_FAILED_RCX;
  }
  return { ept, gpa, level, at: position.at, entry: position.entry };
}

/** Takes an entry's lock for the host, and reads the entry again under it. Busy puts its details into RCX and RDX. @public */
export function lockEntry(held: Held, regs: Registers, located: LocatedEntry): LocatedEntry | bigint {
  const { ept, gpa, level, at } = located;
  const status = ept.tryLock(at);
  if (status !== STATUS.TDX_SUCCESS) {
    putSeptDetails(regs, ept, located);
    return withOperand(status, RCX);
  }
  held.add({ release: () => ept.unlock(at) });
  return { ept, gpa, level, at, entry: ept.read(at) };
}
