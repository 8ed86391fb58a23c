/** The TDCALL dispatcher (module facts 9). */
import { OPERAND } from '../../abi/operands.ts';
import { RAX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { TDCS, TDVPS } from '../td/layout.ts';
import { GUEST_LEAVES } from './guest-leaves.ts';
import { injectGp } from './injection.ts';
import { isIn64BitMode } from './long-mode.ts';
import type { RunningVcpu } from './running-vcpu.ts';
import { clearInstructionBlocking, exitToHost } from './td-exit.ts';
import type { ExitResult } from './vm-exit.ts';

const OPERAND_INVALID_RAX = withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
const DETAILS = 0xffff_ffffn;

/** @internal */
export function tdcallExit(vcpu: RunningVcpu): ExitResult {
  if (!isIn64BitMode(vcpu)) {
    injectGp(vcpu);
    return 'handled';
  }
  const { d } = vcpu.regs;
  const result = callLeaf(vcpu, d[2 * RAX]!, d[2 * RAX + 1]!);
  if (result === 'left' || result === 'reentered') return result;
  if (result === 'interrupted') {
    vcpu.tdvps.setFlag(TDVPS.HP_LOCK_BUSY, false);
    clearInstructionBlocking(vcpu);
    return result;
  }
  return isHostPriorityBusy(result) ? hostPriorityBusy(vcpu, result) : answer(vcpu, result);
}

function callLeaf(
  vcpu: RunningVcpu,
  low: number,
  high: number,
): ReturnType<(typeof GUEST_LEAVES)[number] & {}> {
  if (high !== 0 || low >= 0x100_0000) return OPERAND_INVALID_RAX;
  const number = low & 0xffff;
  const version = low >>> 16;
  const newest = vcpu.module.release.guestLeaves.get(number);
  if (newest === undefined || (version > 0 && newest === 0)) return OPERAND_INVALID_RAX;
  return GUEST_LEAVES[number]?.(vcpu, version) ?? OPERAND_INVALID_RAX;
}

function answer(vcpu: RunningVcpu, status: bigint): ExitResult {
  vcpu.tdvps.setFlag(TDVPS.HP_LOCK_BUSY, false);
  vcpu.regs.q[RAX] = status;
  return 'handled';
}

function isHostPriorityBusy(status: bigint): boolean {
  return (status & ~DETAILS) === STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY;
}

/** A host waits for a lock that the guest wants: the guest tries again, but not for ever. */
function hostPriorityBusy(vcpu: RunningVcpu, status: bigint): ExitResult {
  const { tdvps, tdcs, lp, regs } = vcpu;
  regs.q[RAX] = STATUS.TDX_OPERAND_BUSY | (status & DETAILS);
  const now = lp.rdtsc();
  if (!tdvps.flag(TDVPS.HP_LOCK_BUSY)) {
    tdvps.setFlag(TDVPS.HP_LOCK_BUSY, true);
    tdvps.setU64(TDVPS.HP_LOCK_BUSY_START, now);
    return 'handled';
  }
  const waited = BigInt.asUintN(64, now - tdvps.u64(TDVPS.HP_LOCK_BUSY_START));
  if (waited < tdcs.u64(TDCS.HP_LOCK_TIMEOUT)) return 'handled';
  tdvps.setFlag(TDVPS.HP_LOCK_BUSY, false);
  return exitToHost(vcpu, STATUS.TDX_HOST_PRIORITY_BUSY_TIMEOUT);
}
