/**
 * TDG.MEM.PAGE.ATTR.RD: what the L2 VMs may do with a page (module facts 9). In: RCX GPA. Out: RCX the page's address,
 * level and whether it waits to be accepted; RDX the attributes, 16 bits by VM.
 */
import { alignDown } from '../../../abi/address.ts';
import { TDG } from '../../../abi/leaves.ts';
import { OPERAND } from '../../../abi/operands.ts';
import { RCX, RDX, type Registers } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { gpaFrom, isGpaValid } from '../../td/gpa.ts';
import { l2Attributes } from '../../td/l2-blocking.ts';
import { aliases } from '../../td/l2-sept.ts';
import { SEPT_LEVEL, SEPT_LEVEL_SIZES } from '../../td/sept.ts';
import { isPending, isSeptStateAllowedForGuest } from '../../td/sept-entry.ts';
import type { GuestLeaf } from '../guest-leaf.ts';
import { exitForEptViolation } from '../td-exit.ts';

/** RCX bit 62 on output. @internal */
export const PAGE_PENDING = 1n << 62n;

/** A refusal leaves nothing in RCX and RDX. @internal */
export function withoutAttributes({ q }: Registers, status: bigint): bigint {
  q[RCX] = 0n;
  q[RDX] = 0n;
  return status;
}

/** @internal */
export const memPageAttrRd: GuestLeaf = (vcpu) => {
  const { regs, td } = vcpu;
  const gpa = gpaFrom(regs, RCX);
  if (gpa === undefined || !isGpaValid(td.tdcs, gpa, true)) {
    return withoutAttributes(regs, withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX));
  }
  const ept = td.sept();
  const position = ept.walk(gpa, SEPT_LEVEL.PT_4K);
  const { level, entry, at } = position;
  const locked = ept.tryLockForGuest(at);
  if (locked !== STATUS.TDX_SUCCESS) return withoutAttributes(regs, withOperand(locked, OPERAND.RCX));
  ept.unlock(at);
  if (!isSeptStateAllowedForGuest(TDG.memPageAttrRd, entry)) {
    return exitForEptViolation(vcpu, 0n, BigInt(gpa));
  }
  let attributes = 0n;
  for (const alias of aliases(td, { ...position, ept, gpa })) {
    attributes |= BigInt(l2Attributes(alias.entry, entry)) << BigInt(16 * alias.vm);
  }
  const page = BigInt(alignDown(gpa, SEPT_LEVEL_SIZES[level]!) + level);
  regs.q[RCX] = isPending(entry) ? page | PAGE_PENDING : page;
  regs.q[RDX] = attributes;
  return STATUS.TDX_SUCCESS;
};
