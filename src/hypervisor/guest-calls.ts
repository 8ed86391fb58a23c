/** Hypercalls of protected guests: which pages the host may use, and where devices are. */
import { isAligned, PAGE_4K, pfnOf } from '../abi/address.ts';
import { ERRNO } from '../abi/errno.ts';
import { CALL_NEEDS, GUEST_CALL, SMCCC, SMCCC_VERSION, setSignedRegister, X } from '../abi/pkvm.ts';
import { EXIT } from '../abi/vm-exit.ts';
import type { GuestExit } from '../machine/guest-code.ts';
import { guestShareHost, markMmio } from './guest-transitions.ts';
import type { Ownership } from './ownership.ts';
import type { HypVcpu } from './vm.ts';

/** Length of HVC in bytes. */
const HVC_LENGTH = 4;

/**
 * HVC of a guest. Some calls are answered at once; the host hears of shared and unshared pages before the guest goes
 * on. A guest that is not protected shares nothing: all its calls are the host's.
 * @internal
 */
export function guestHvc(o: Ownership, vcpu: HypVcpu): GuestExit | 'done' {
  const { regs, vm } = vcpu;
  const call = Number(regs.q[X.x0]!);
  if (!vm.isProtected) return hvcExit(vcpu, call, 0);
  switch (call) {
    case GUEST_CALL.version:
      return answer(vcpu, SMCCC_VERSION);
    case GUEST_CALL.features:
      return answer(vcpu, FEATURES);
    case GUEST_CALL.hypMeminfo:
      return answer(vcpu, hasNoArguments(vcpu, X.x1) ? PAGE_4K : SMCCC.invalidParameter);
    case GUEST_CALL.memShare:
      return shareCall(o, vcpu);
    case GUEST_CALL.memUnshare:
      return hasPageArgument(vcpu)
        ? hvcExit(vcpu, call, pfnOf(pageArgument(vcpu)))
        : answer(vcpu, SMCCC.invalidParameter);
    case GUEST_CALL.mmioGuard:
      return mmioGuardCall(vcpu);
    default:
      return hvcExit(vcpu, call, 0);
  }
}

/** A bit per vendor-specific function: features itself, meminfo, share, unshare, mmioGuard. */
const FEATURES = [0, 2, 3, 4, 7].reduce((bits, number) => bits + 2 ** number, 0);

/** The page changes hands here; the host learns of it so that its own tables let user space map it. */
function shareCall(o: Ownership, vcpu: HypVcpu): GuestExit | 'done' {
  if (!hasPageArgument(vcpu)) return answer(vcpu, SMCCC.invalidParameter);
  const gfn = pfnOf(pageArgument(vcpu));
  const shared = guestShareHost(o, vcpu.vm, gfn);
  if (shared === -ERRNO.ENOENT) return hvcExit(vcpu, GUEST_CALL.memShare, gfn, CALL_NEEDS.page);
  if (shared === -ERRNO.E2BIG) return hvcExit(vcpu, GUEST_CALL.memShare, gfn, CALL_NEEDS.split);
  return shared === 0 ? hvcExit(vcpu, GUEST_CALL.memShare, gfn) : answer(vcpu, SMCCC.invalidParameter);
}

function mmioGuardCall(vcpu: HypVcpu): GuestExit | 'done' {
  if (!hasPageArgument(vcpu)) return answer(vcpu, SMCCC.invalidParameter);
  const gfn = pfnOf(pageArgument(vcpu));
  const marked = markMmio(vcpu, gfn);
  if (marked === -ERRNO.ENOMEM) return hvcExit(vcpu, GUEST_CALL.mmioGuard, gfn, CALL_NEEDS.tables);
  return answer(vcpu, marked === 0 ? SMCCC.success : SMCCC.invalidParameter);
}

/** Goes to the host, which sees to what the call needs. */
function hvcExit(vcpu: HypVcpu, call: number, gfn: number, needs: number = CALL_NEEDS.nothing): GuestExit {
  vcpu.pendingCall = { call, gfn, needs };
  return {
    reason: EXIT.VMCALL,
    qualification: 0n,
    gpa: gfn * PAGE_4K,
    instructionLengthBytes: HVC_LENGTH,
  };
}

function answer({ regs }: HypVcpu, x0: number): 'done' {
  setSignedRegister(regs, X.x0, x0);
  for (const register of [X.x1, X.x2, X.x3]) regs.q[register] = 0n;
  return 'done';
}

function pageArgument({ regs }: HypVcpu): number {
  return Number(regs.q[X.x1]!);
}

function hasPageArgument(vcpu: HypVcpu): boolean {
  const address = pageArgument(vcpu);
  return isAligned(address, PAGE_4K) && vcpu.vm.stage2.holds(pfnOf(address)) && hasNoArguments(vcpu, X.x2);
}

function hasNoArguments({ regs }: HypVcpu, from: number): boolean {
  for (let register = from; register <= X.x3; register++) if (regs.q[register] !== 0n) return false;
  return true;
}
