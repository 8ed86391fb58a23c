/** What the host leaves on a private page begin with: RDX names the TD, RCX the page and its level (module facts 2, 7). */
import { OPERAND } from '../../abi/operands.ts';
import { RCX, RDX, type Registers } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LockMode } from '../locks.ts';
import type { TdxModule } from '../tdx-module.ts';
import { gpaOperand, type LocatedEntry, locateEntry, lockEntry } from './gpa.ts';
import type { Held } from './held.ts';
import { enterOpState, lockTdrWithFlags } from './operands.ts';
import { putSeptDetails } from './sept.ts';
import { isSeptStateAllowed } from './sept-entry.ts';
import type { TrustDomain } from './trust-domain.ts';

/** A call on a TD that allows it. RCX and RDX are zero from here on, until the leaf has something to say in them. @public */
export interface PageCall {
  readonly td: TrustDomain;
  /** Those of the allowed flags that RDX has set in its low bits. */
  readonly flags: number;
  /** RCX as it came. */
  readonly low: number;
  readonly high: number;
}

/** Locks the TD in RDX and its operation state for `leaf`; `flags` are allowed beside its address. @public */
export function enterPageLeaf(
  module: TdxModule,
  held: Held,
  regs: Registers,
  leaf: number,
  flags = 0,
): PageCall | bigint {
  const low = regs.d[2 * RCX]!;
  const high = regs.d[2 * RCX + 1]!;
  const handle = lockTdrWithFlags(module, held, regs.d[2 * RDX]!, regs.d[2 * RDX + 1]!, 'shared', flags);
  regs.q[RCX] = 0n;
  regs.q[RDX] = 0n;
  if (typeof handle === 'bigint') return handle;
  const entered = enterOpState(held, handle.td, leaf, 'shared');
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  return { td: handle.td, flags: handle.flags, low, high };
}

/** Which entries a leaf works on, and how it locks the tree. @public */
export interface EntryKind {
  readonly minLevel: number;
  /** Undefined: up to the level of the tree's root. */
  readonly maxLevel?: number;
  readonly tree: LockMode;
}

/** Finds and locks the entry of the page in RCX. Statuses from the walk on put the entry's details into RCX and RDX. @public */
export function openEntry(
  held: Held,
  regs: Registers,
  { td, low, high }: PageCall,
  kind: EntryKind,
): LocatedEntry | bigint {
  const operand = gpaOperand(low, high, kind.minLevel, kind.maxLevel ?? td.sept().rootLevel);
  if (operand === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const located = locateEntry(held, td, regs, operand, kind.tree);
  if (typeof located === 'bigint') return located;
  return lockEntry(held, regs, located);
}

/** TDX_SUCCESS when host leaf `leaf` works on an entry in this state; else the status, with details. @public */
export function checkSeptState(regs: Registers, leaf: number, located: LocatedEntry): bigint {
  return isSeptStateAllowed(leaf, located.entry) ? STATUS.TDX_SUCCESS : septStateIncorrect(regs, located);
}

/** TDX_EPT_ENTRY_STATE_INCORRECT on RCX, with details. @public */
export function septStateIncorrect(regs: Registers, located: LocatedEntry): bigint {
  putSeptDetails(regs, located.ept, located);
  return withOperand(STATUS.TDX_EPT_ENTRY_STATE_INCORRECT, OPERAND.RCX);
}
