/** TDH.VP.ENTER: runs a vCPU on the calling logical processor until the module exits to the host (module facts 12). */
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, RAX, RCX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { deliverExit } from '../guest/dispatcher.ts';
import { requestNmiWindow } from '../guest/injection.ts';
import { RunningVcpu } from '../guest/running-vcpu.ts';
import { clearHostRegisters, exitToHost } from '../guest/td-exit.ts';
import { checkNotedFaults } from '../guest/zero-step.ts';
import type { Leaf } from '../leaf.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import type { ControlStructure } from '../td/control-structure.ts';
import { withHostUncorePmi } from '../td/debugctl.ts';
import { ATTRIBUTES, hasAny } from '../td/features.ts';
import { Held, locking } from '../td/held.ts';
import {
  CPUID_FLAG,
  LAST_TD_EXIT,
  TDCS,
  TDVPS,
  VCPU_STATE,
  XBUFF_XCOMP_BV,
  XBUFF_XSTATE_BV,
} from '../td/layout.ts';
import { enterOpState, lockImplicitTdr, lockPageAt, plainHpa } from '../td/operands.ts';
import { isDdpdHidden, virtualSpecCtrl } from '../td/spec-ctrl.ts';
import type { TrustDomain } from '../td/trust-domain.ts';
import { associateVcpu, countInEpoch, forgetTranslations, leaveEpoch } from '../td/vcpu.ts';
import { VMCS } from '../td/vmcs.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const vpEnter: Leaf = { handler: locking(run) };

/** RCX: the TDVPR's address in bits 51:12, and two flags. */
const RCX_RESERVED_LOW = 0xfff;
const RCX_RESERVED_HIGH = 0xffc0_0000;
const RCX_ADDRESS_HIGH = 0xf_ffff;
const HINT_HIGH = 1 << 20;
const RESUME_L1_HIGH = 1 << 21;

/** IA32_MISC_ENABLE. */
const LIMIT_CPUID_MAXVAL = 1n << 22n;
const ENABLE_MONITOR = 1n << 18n;
/** A TD exit's status has the hint in bit 60. */
const STATUS_HINT = 1n << 60n;
/** IA32_PERF_GLOBAL_CTRL of a TD that is not profiled: instructions retired. */
const PERF_CTRL_DEFAULT = 1n << 32n;
const COMPACTED = 1n << 63n;
/** Extended exit qualification: the saved extended state cannot be loaded. */
const EEQ_EXTENDED_STATE = 4n;
/** Qualification of the fault that a stepped vCPU would take again: a write. */
const WRITE_ACCESS = 2n;
const SSE_STATE = 1n << 1n;
/** Bytes of an XSAVE header behind its two bit vectors. */
const XSAVE_HEADER_RESERVED = 48;
const EPOCH_LOCK_EXCLUSIVE = 1;

const INVALID_RCX = withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const platform = module.platform!;
  const miscEnable = lp.rdmsr(MODULE_MSR.MISC_ENABLE);
  if (hasAny(miscEnable, LIMIT_CPUID_MAXVAL)) return STATUS.TDX_LIMIT_CPUID_MAXVAL_SET;
  const low = regs.d[2 * RCX]!;
  const high = regs.d[2 * RCX + 1]!;
  if ((low & RCX_RESERVED_LOW) !== 0 || (high & RCX_RESERVED_HIGH) !== 0) return INVALID_RCX;
  const address = plainHpa(platform, low, high & RCX_ADDRESS_HIGH);
  if (address === undefined) return INVALID_RCX;
  const hint = (high & HINT_HIGH) !== 0;
  const root = lockPageAt(module, held, address, OPERAND.RCX, 'shared', PAGE_TYPE.TDVPR);
  if (typeof root === 'bigint') return root;
  const td = lockImplicitTdr(module, held, root.walk.entry.owner, 'shared');
  if (typeof td === 'bigint') return td;
  const opState = held.add(new Held());
  const opened = enterOpState(opState, td, TDH.vpEnter, 'shared');
  if (opened !== STATUS.TDX_SUCCESS) return opened;
  const { tdcs } = td;
  const tdvps = td.tdvps(address);
  if (tdvps === undefined) return STATUS.TDX_TDCX_NUM_INCORRECT;
  const state = tdvps.u8(TDVPS.VCPU_STATE);
  if (state !== VCPU_STATE.READY) return withOperand(STATUS.TDX_VCPU_STATE_INCORRECT, state);
  const association = associateVcpu(td, tdvps, lp);
  if (association === undefined) return STATUS.TDX_VCPU_ASSOCIATED;
  if (hint && tdvps.u8(TDVPS.LAST_TD_EXIT) !== LAST_TD_EXIT.ASYNC_TRAP) return INVALID_RCX;
  if ((high & RESUME_L1_HIGH) !== 0 && tdvps.u16(TDVPS.CURR_VM) === 0) return INVALID_RCX;
  if (lp.rdmsr(MODULE_MSR.TSC_ADJUST) !== platform.msrs.get(MODULE_MSR.TSC_ADJUST)) {
    return withOperand(STATUS.TDX_INCONSISTENT_MSR, MODULE_MSR.TSC_ADJUST);
  }
  if (BigInt.asIntN(64, lp.rdtsc() - tdvps.u64(TDVPS.LAST_EXIT_TSC)) < 0n) return STATUS.TDX_TSC_ROLLBACK;
  if (td.cpuidFlag(CPUID_FLAG.MONITOR_MWAIT) && !hasAny(miscEnable, ENABLE_MONITOR)) {
    return withOperand(STATUS.TDX_INCORRECT_MSR_VALUE, MODULE_MSR.MISC_ENABLE);
  }
  if (!joinEpoch(td, tdvps, association.isNew)) {
    return withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.TD_EPOCH);
  }
  const vcpu = new RunningVcpu(module, lp, td, address, tdvps);
  const tree = held.add(new Held());
  const verdict = checkNotedFaults(tree, vcpu);
  if (verdict !== undefined) {
    leaveEpoch(tdcs, tdvps);
    return 'busy' in verdict ? verdict.busy : refuseSteppedVcpu(vcpu, verdict.gpa);
  }
  held.drop(opState);
  updateGuestRegisters(vcpu, hint);
  updateVmcs(vcpu);
  held.drop(tree);
  vcpu.enter(held.take());
  if (!isExtendedStateLoadable(tdcs, tdvps)) {
    exitToHost(vcpu, STATUS.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE, {
      reason: EXIT.ENTRY_FAILED_GUEST_STATE,
      extended: EEQ_EXTENDED_STATE,
    });
    return regs.q[RAX]!;
  }
  tdvps.setU8(TDVPS.LP_DEPENDENT_HPA_UPDATED, 1);
  tdvps.setU8(TDVPS.MODULE_DEPENDENT_FIELDS_UPDATED, 1);
  tdvps.setU8(TDVPS.VCPU_STATE, VCPU_STATE.ACTIVE);
  return runGuest(vcpu);
}

/** Runs the guest until the host is to go on. Without a runner the vCPU stays entered, and its exits come from outside. */
function runGuest(vcpu: RunningVcpu): bigint {
  const { guestRunner } = vcpu.module;
  if (guestRunner !== null) while (deliverExit(vcpu, guestRunner.run(vcpu)) !== 'exited');
  return vcpu.lp.regs.q[RAX]!;
}

/**
 * Counts the vCPU among those that run in the TD's present epoch, and makes it forget what it cached in an earlier
 * one. False while the epoch is being changed.
 */
function joinEpoch(td: TrustDomain, tdvps: ControlStructure, isNew: boolean): boolean {
  const { tdcs } = td;
  if ((tdcs.u16(TDCS.EPOCH_LOCK) & EPOCH_LOCK_EXCLUSIVE) !== 0) return false;
  const epoch = tdcs.u64(TDCS.TD_EPOCH);
  countInEpoch(tdcs, epoch, 1);
  if (epoch !== tdvps.u64(TDVPS.VCPU_EPOCH)) {
    if (!isNew) forgetTranslations(td, tdvps);
    tdvps.setU64(TDVPS.VCPU_EPOCH, epoch);
  }
  return true;
}

/** A vCPU that would fault where it faulted before: the host hears of the fault without running it. */
function refuseSteppedVcpu(vcpu: RunningVcpu, gpa: bigint): bigint {
  const { tdvps, lp } = vcpu;
  tdvps.setU8(TDVPS.VCPU_STATE, VCPU_STATE.READY);
  tdvps.setU8(TDVPS.LAST_TD_EXIT, LAST_TD_EXIT.ASYNC_FAULT);
  clearHostRegisters(vcpu);
  lp.regs.q[RCX] = WRITE_ACCESS;
  lp.regs.q[R8] = gpa & ~0xfffn;
  return BigInt(EXIT.EPT_VIOLATION);
}

/** What the host answers to the guest's call, or says of the trap that made it exit. */
function updateGuestRegisters({ tdvps, regs, lp }: RunningVcpu, hint: boolean): void {
  const lastExit = tdvps.u8(TDVPS.LAST_TD_EXIT);
  if (lastExit === LAST_TD_EXIT.TDVMCALL) {
    const control = regs.d[2 * RCX]!;
    if (control >>> 16 !== 0) tdvps.setU64(XBUFF_XSTATE_BV, tdvps.u64(XBUFF_XSTATE_BV) | SSE_STATE);
    for (let i = 2; i < regs.q.length; i++) if (((control >>> i) & 1) !== 0) regs.q[i] = lp.regs.q[i]!;
    regs.q[RAX] = STATUS.TDX_SUCCESS;
  } else if (lastExit === LAST_TD_EXIT.ASYNC_TRAP) {
    regs.q[RAX] = hint ? regs.q[RAX]! | STATUS_HINT : regs.q[RAX]! & ~STATUS_HINT;
  }
}

function updateVmcs(vcpu: RunningVcpu): void {
  const { vmcs, td, tdvps, module, lp } = vcpu;
  requestNmiWindow(vcpu);
  vmcs.write(VMCS.GUEST_DEBUGCTL, withHostUncorePmi(lp, vmcs.read(VMCS.GUEST_DEBUGCTL)));
  const platform = module.platform!;
  if (isDdpdHidden(platform, td)) {
    vmcs.write(VMCS.SPEC_CTRL_SHADOW, virtualSpecCtrl(platform, td, tdvps.u64(TDVPS.IA32_SPEC_CTRL)));
  }
  if (!vcpu.hasAttribute(ATTRIBUTES.PERFMON)) vmcs.write(VMCS.GUEST_PERF_GLOBAL_CTRL, PERF_CTRL_DEFAULT);
}

/** The header of the saved extended state is such as XSAVES writes it, and asks for no more than the TD has. */
function isExtendedStateLoadable(tdcs: ControlStructure, tdvps: ControlStructure): boolean {
  const components = tdvps.u64(XBUFF_XCOMP_BV);
  if (!hasAny(components, COMPACTED)) return false;
  if (hasAny(components & ~COMPACTED, ~tdcs.u64(TDCS.XFAM))) return false;
  if (hasAny(tdvps.u64(XBUFF_XSTATE_BV), ~components)) return false;
  return tdvps.bytes(XBUFF_XCOMP_BV + 8, XSAVE_HEADER_RESERVED).every((byte) => byte === 0);
}
