/**
 * TDG.MEM.PAGE.ATTR.WR: says what the L2 VMs may do with a page (module facts 9). In: RCX GPA and level, RDX attributes,
 * 16 bits by VM, R8 the bits of them to change. Out: RCX as given and whether the page waits to be accepted, RDX the
 * attributes.
 */
import { TDG } from '../../../abi/leaves.ts';
import { OPERAND } from '../../../abi/operands.ts';
import { R8, RCX, RDX } from '../../../abi/registers.ts';
import { withInfo, withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { hasAny } from '../../td/features.ts';
import { type GpaOperand, gpaOperand, isGpaValid, type LocatedEntry } from '../../td/gpa.ts';
import { areAttributesLegal, givesAccess, l2PageEntry } from '../../td/l2-attributes.ts';
import { L2_ATTRIBUTE, l2Attributes } from '../../td/l2-blocking.ts';
import { aliasBit } from '../../td/l2-sept.ts';
import { MAX_VMS, TDCS } from '../../td/layout.ts';
import { SEPT_LEVEL } from '../../td/sept.ts';
import { withoutAcceptCounter } from '../../td/sept-blocking.ts';
import {
  isLeafEntry,
  isPending,
  isSeptStateAllowedForGuest,
  SEPT_STATE,
  septState,
} from '../../td/sept-entry.ts';
import type { Interrupted } from '../gpa-access.ts';
import type { GuestLeaf } from '../guest-leaf.ts';
import { exitForL2Page, exitForPage, PAGE_EXIT } from '../page-exit.ts';
import type { RunningVcpu } from '../running-vcpu.ts';
import { PAGE_PENDING, withoutAttributes } from './mem-page-attr-rd.ts';

/** TDCS.VM_CTLS bit 0: the host hears of a missing L2 table by an exit. */
const EXIT_ON_WALK_FAILURE = 1n;
const L2_FREE = { low: 0, high: 0 } as const;

/** What is to become of the entry of one VM. */
interface Change {
  readonly vm: number;
  readonly place: LocatedEntry;
  readonly wasAliased: boolean;
  readonly attributes: number;
}

/** @internal */
export const memPageAttrWr: GuestLeaf = (vcpu) => {
  const { regs, td } = vcpu;
  const malformed = checkOperands(vcpu);
  if (malformed !== undefined) {
    return withoutAttributes(regs, withOperand(STATUS.TDX_OPERAND_INVALID, malformed));
  }
  const { PT_4K, PDPT_1G } = SEPT_LEVEL;
  const operand = gpaOperand(regs.d[2 * RCX]!, regs.d[2 * RCX + 1]!, PT_4K, PDPT_1G);
  if (operand === undefined || !isGpaValid(td.tdcs, operand.gpa, true)) {
    return withoutAttributes(regs, withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX));
  }
  const ept = td.sept();
  const position = ept.walk(operand.gpa, operand.level);
  const { at, entry, level } = position;
  if (level !== operand.level) return exitForPage(vcpu, PAGE_EXIT.ATTR_WR, operand, position);
  const locked = ept.tryLockForGuest(at);
  if (locked !== STATUS.TDX_SUCCESS) return withoutAttributes(regs, withOperand(locked, OPERAND.RCX));
  ept.unlock(at);
  if (!isLeafEntry(entry) && septState(entry) !== SEPT_STATE.FREE) {
    return withoutAttributes(regs, withOperand(STATUS.TDX_PAGE_SIZE_MISMATCH, level));
  }
  if (!isSeptStateAllowedForGuest(TDG.memPageAttrWr, entry)) {
    return exitForPage(vcpu, PAGE_EXIT.ATTR_WR, operand, position);
  }
  return writeAttributes(vcpu, operand, { ept, gpa: operand.gpa, ...position });
};

/** The operand at fault, if any: only L2 VMs that exist have attributes, and those without VALID are none. */
function checkOperands({ tdcs, regs }: RunningVcpu): number | undefined {
  for (let vm = 0; vm < MAX_VMS; vm++) {
    const attributes = field(regs.q[RDX]!, vm);
    const hasNone = vm === 0 || vm > tdcs.u16(TDCS.NUM_L2_VMS);
    if (attributes !== 0 && (hasNone || (attributes & L2_ATTRIBUTE.VALID) === 0)) return OPERAND.RDX;
    if (hasNone && field(regs.q[R8]!, vm) !== 0) return OPERAND.R8;
  }
  return undefined;
}

function field(value: bigint, vm: number): number {
  return Number((value >> BigInt(16 * vm)) & 0xffffn);
}

function writeAttributes(vcpu: RunningVcpu, operand: GpaOperand, own: LocatedEntry): bigint | Interrupted {
  const { regs, td, tdcs } = vcpu;
  const results = Array.from({ length: MAX_VMS }, (_, vm) => field(regs.q[RDX]!, vm));
  const changes: Change[] = [];
  let status: bigint = STATUS.TDX_SUCCESS;
  for (let vm = 1; vm <= tdcs.u16(TDCS.NUM_L2_VMS); vm++) {
    const mask = field(regs.q[R8]!, vm) | L2_ATTRIBUTE.VALID;
    const wanted = results[vm]! & mask;
    if ((wanted & L2_ATTRIBUTE.VALID) === 0) continue;
    const wasAliased = (own.entry.high & aliasBit(vm)) !== 0;
    if (!wasAliased && !givesAccess(wanted)) continue;
    const ept = td.sept(vm);
    const position = ept.walk(operand.gpa, own.level);
    const present = wasAliased ? l2Attributes(position.entry, own.entry) : 0;
    const attributes = (present & ~mask) | wanted;
    if (givesAccess(attributes) && !areAttributesLegal(attributes)) {
      status = STATUS.TDX_PAGE_ATTR_INVALID;
      results[vm] = present;
      continue;
    }
    results[vm] = attributes;
    if (position.level !== own.level) {
      if (hasAny(tdcs.u64(TDCS.VM_CTLS + 8 * vm), EXIT_ON_WALK_FAILURE)) {
        return exitForL2Page(vcpu, vm, operand, position);
      }
      const failure = withInfo(STATUS.TDX_L2_SEPT_WALK_FAILED, position.level, 0, vm);
      return withoutAttributes(regs, failure);
    }
    changes.push({ vm, place: { ept, gpa: operand.gpa, ...position }, wasAliased, attributes });
  }
  if (status === STATUS.TDX_SUCCESS) for (const change of changes) results[change.vm] = apply(own, change);
  const pending = isPending(own.entry) ? PAGE_PENDING : 0n;
  regs.q[RCX] = status === STATUS.TDX_SUCCESS ? regs.q[RCX]! | pending : 0n;
  regs.q[RDX] = results.reduce((all, value, vm) => all | (BigInt(value) << BigInt(16 * vm)), 0n);
  return status;
}

/** Makes, changes or removes the L2 entry. Returns the attributes it has then. */
function apply(own: LocatedEntry, { vm, place, wasAliased, attributes }: Change): number {
  const { low, high } = own.ept.read(own.at);
  if (!givesAccess(attributes)) {
    place.ept.write(place.at, L2_FREE);
    own.ept.write(own.at, { low, high: (high & ~aliasBit(vm)) >>> 0 });
    return L2_ATTRIBUTE.VALID;
  }
  const page = withoutAcceptCounter(own.entry, own.level);
  place.ept.write(place.at, l2PageEntry(page, attributes, isPending(own.entry)));
  if (!wasAliased) own.ept.write(own.at, { low, high: (high | aliasBit(vm)) >>> 0 });
  return attributes;
}
