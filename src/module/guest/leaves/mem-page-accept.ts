/**
 * TDG.MEM.PAGE.ACCEPT: takes a page that the host has put into the TD, zeroed (module facts 9). In: RCX GPA and level.
 * A large page is zeroed piece by piece, and an event for the host stops it in between; its entry keeps the count.
 */
import { PAGE_4K } from '../../../abi/address.ts';
import { TDG } from '../../../abi/leaves.ts';
import { OPERAND } from '../../../abi/operands.ts';
import { RCX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { isEventPending } from '../../pending-events.ts';
import { type GpaOperand, gpaOperand, type LocatedEntry } from '../../td/gpa.ts';
import { l2Unblocked } from '../../td/l2-blocking.ts';
import { aliases } from '../../td/l2-sept.ts';
import { SEPT_LEVEL } from '../../td/sept.ts';
import { acceptedPieces, withAcceptedPieces } from '../../td/sept-blocking.ts';
import {
  isGuestAccessible,
  isLeafEntry,
  isSeptStateAllowedForGuest,
  SEPT_RWX_XU,
  SEPT_STATE,
  type SeptEntry,
  septState,
  withSeptState,
} from '../../td/sept-entry.ts';
import type { GuestLeaf } from '../guest-leaf.ts';
import { exitForPage, PAGE_EXIT } from '../page-exit.ts';
import type { RunningVcpu } from '../running-vcpu.ts';

const INVALID_RCX = withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
const PIECES = 512;

/** @internal */
export const memPageAccept: GuestLeaf = (vcpu) => {
  const { regs, td } = vcpu;
  const { PT_4K, PD_2M } = SEPT_LEVEL;
  const operand = gpaOperand(regs.d[2 * RCX]!, regs.d[2 * RCX + 1]!, PT_4K, PD_2M);
  const ept = td.sept();
  if (operand === undefined || operand.gpa >= ept.gpaLimit) return INVALID_RCX;
  const position = ept.walk(operand.gpa, operand.level);
  const { level, entry, at } = position;
  if (level !== operand.level) {
    return isGuestAccessible(entry)
      ? withOperand(STATUS.TDX_PAGE_ALREADY_ACCEPTED, level)
      : exitForPage(vcpu, PAGE_EXIT.ACCEPT, operand, position);
  }
  const locked = ept.tryLockForGuest(at);
  if (locked !== STATUS.TDX_SUCCESS) return withOperand(locked, OPERAND.RCX);
  const answer = accept(vcpu, operand, { ept, gpa: operand.gpa, ...position });
  if (answer !== STATUS.TDX_SUCCESS && answer !== 'interrupted') ept.unlock(at);
  return answer === 'unacceptable' ? exitForPage(vcpu, PAGE_EXIT.ACCEPT, operand, position) : answer;
};

/** Works on the locked entry; success and interruption replace it, and so release it. */
function accept(
  vcpu: RunningVcpu,
  { level }: GpaOperand,
  located: LocatedEntry,
): bigint | 'interrupted' | 'unacceptable' {
  const { td } = vcpu;
  const { ept, at, entry } = located;
  if (septState(entry) !== SEPT_STATE.FREE && !isLeafEntry(entry)) {
    return withOperand(STATUS.TDX_PAGE_SIZE_MISMATCH, level);
  }
  if (isGuestAccessible(entry)) return withOperand(STATUS.TDX_PAGE_ALREADY_ACCEPTED, level);
  if (!isSeptStateAllowedForGuest(TDG.memPageAccept, entry)) return 'unacceptable';
  const address = ept.pageAddress(entry, level);
  if (level === SEPT_LEVEL.PT_4K) td.claimPage(address);
  else {
    let done = acceptedPieces(entry);
    do {
      td.claimPage(address + done * PAGE_4K);
      done++;
    } while (done < PIECES && !isEventPending(vcpu.lp));
    if (done < PIECES) {
      ept.writeKeepingClaim(at, withAcceptedPieces(entry, done));
      return 'interrupted';
    }
  }
  ept.writeKeepingClaim(at, acceptedEntry(level === SEPT_LEVEL.PT_4K ? entry : withAcceptedPieces(entry, 0)));
  for (const alias of aliases(td, located)) alias.ept.write(alias.at, l2Unblocked(alias.entry));
  return STATUS.TDX_SUCCESS;
}

function acceptedEntry(entry: SeptEntry): SeptEntry {
  const state = septState(entry) === SEPT_STATE.PENDING ? SEPT_STATE.MAPPED : SEPT_STATE.EXPORTED_DIRTY;
  const { low, high } = withSeptState(entry, state);
  return { low: (low | SEPT_RWX_XU) >>> 0, high };
}
