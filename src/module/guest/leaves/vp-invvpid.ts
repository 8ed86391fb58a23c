/**
 * TDG.VP.INVVPID: drops cached translations of linear addresses of an L2 VM, which the model does not cache. In: RCX the
 * VM and whether RDX is one entry or describes a list. Out: RDX what is left of the list.
 */
import { OPERAND } from '../../../abi/operands.ts';
import { RCX, RDX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { isEventPending } from '../../pending-events.ts';
import { accessGpa } from '../gpa-access.ts';
import type { GuestLeaf } from '../guest-leaf.ts';
import { l2VmOperand } from './vp-enter.ts';

const IS_LIST = 1n;
/** A list: first entry in bits 8:0, its page in bits 51:12, number of entries in bits 61:52. */
const LIST = { FIRST: 0x1ffn, PAGE: 0xf_ffff_ffff_f000n, COUNT_SHIFT: 52n, COUNT: 0x3ffn } as const;
const LIST_RESERVED = 0xc000_0000_0000_0e00n;
const LIST_ENTRIES = 512;
/** An entry: linear page number in bits 63:12, pages beyond the first in bits 11:0. */
const PAGES_MASK = 0xfffn;
const PAGE = 0x1000n;

/** @internal */
export const vpInvvpid: GuestLeaf = (vcpu) => {
  const {
    regs,
    module,
    lp,
    lp: { machine },
  } = vcpu;
  if (l2VmOperand(vcpu, IS_LIST) === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const operand = regs.q[RDX]!;
  const linearBits = module.platform!.features.la57 ? 57 : 48;
  const invalidate = (entry: bigint): bigint =>
    isCanonicalRange(entry, linearBits) ? STATUS.TDX_SUCCESS : STATUS.TDX_GLA_NOT_CANONICAL;
  if ((regs.q[RCX]! & IS_LIST) === 0n) return invalidate(operand);
  let first = Number(operand & LIST.FIRST);
  let count = Number((operand >> LIST.COUNT_SHIFT) & LIST.COUNT);
  if ((operand & LIST_RESERVED) !== 0n || first + count > LIST_ENTRIES) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  }
  const page = operand & LIST.PAGE;
  const list = accessGpa(vcpu, Number(page), 'read', true);
  if (typeof list === 'bigint') return withOperand(list, OPERAND.RDX);
  if (typeof list === 'string') return list;
  let interrupted = false;
  while (count > 0 && !interrupted) {
    const status = invalidate(machine.memory.read64(list.address + 8 * first, list.keyId));
    if (status !== STATUS.TDX_SUCCESS) return status;
    first++;
    count--;
    interrupted = isEventPending(lp);
  }
  regs.q[RDX] = (BigInt(first) & LIST.FIRST) | page | (BigInt(count) << LIST.COUNT_SHIFT);
  return interrupted ? 'interrupted' : STATUS.TDX_SUCCESS;
};

/** True when the CPU accepts every linear address of the range, which is far smaller than the gap of those it refuses. */
function isCanonicalRange(entry: bigint, linearBits: number): boolean {
  const first = entry & ~PAGES_MASK;
  const last = first + (entry & PAGES_MASK) * PAGE;
  const canonical = (address: bigint): boolean =>
    BigInt.asUintN(64, BigInt.asIntN(linearBits, address)) === BigInt.asUintN(64, address);
  return canonical(first) && canonical(last);
}
