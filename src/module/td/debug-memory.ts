/** The host's way into the memory of a debug TD. */
import { OPERAND } from '../../abi/operands.ts';
import { R8, type Registers } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { TdxModule } from '../tdx-module.ts';
import { ATTRIBUTES, hasAny } from './features.ts';
import { isGpaValid, lockEntry, lockSeptTree } from './gpa.ts';
import type { Held } from './held.ts';
import { TDCS } from './layout.ts';
import { checkSeptState, enterPageLeaf } from './page-leaf.ts';
import { putSeptDetails, SEPT_LEVEL } from './sept.ts';
import { isLeafEntry, SEPT_LOW } from './sept-entry.ts';

const TWO_32 = 0x1_0000_0000;
const HIGH_LIMIT = 0x10_0000;

/** Eight bytes of a TD. @public */
export interface DebugQword {
  readonly address: number;
  readonly keyId: number;
}

/** Finds the bytes at guest address RCX of the TD in RDX for `leaf`, or returns the status. R8 is zero from here on. @public */
export function debugQword(
  module: TdxModule,
  held: Held,
  regs: Registers,
  leaf: number,
): DebugQword | bigint {
  regs.q[R8] = 0n;
  const call = enterPageLeaf(module, held, regs, leaf);
  if (typeof call === 'bigint') return call;
  const { td, low, high } = call;
  if (!hasAny(td.tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.DEBUG)) return STATUS.TDX_TD_NON_DEBUG;
  if (low % 8 !== 0) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const tree = lockSeptTree(held, td, 'shared');
  if (tree !== STATUS.TDX_SUCCESS) return tree;
  const gpa = high * TWO_32 + low;
  if (high >= HIGH_LIMIT || !isGpaValid(td.tdcs, gpa, true)) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  }
  const ept = td.sept();
  const position = ept.walk(gpa, SEPT_LEVEL.PT_4K);
  if (!isLeafEntry(position.entry) || (position.entry.low & SEPT_LOW.RWX) === 0) {
    putSeptDetails(regs, ept, position);
    return withOperand(STATUS.TDX_EPT_ENTRY_NOT_PRESENT, OPERAND.RCX);
  }
  const located = lockEntry(held, regs, { ept, gpa, ...position });
  if (typeof located === 'bigint') return located;
  const allowed = checkSeptState(regs, leaf, located);
  if (allowed !== STATUS.TDX_SUCCESS) return allowed;
  return { address: ept.translate(located.entry, located.level, gpa), keyId: td.keyId };
}
