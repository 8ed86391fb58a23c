/** Leaving a TD for the host: what is saved, and which registers the host gets (module facts 11). */
import { R8, R9, RAX, RBP, RCX, RDX, RSP } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { EXIT, EXIT_BUS_LOCK } from '../../abi/vm-exit.ts';
import { ATTRIBUTES, CONFIG_FLAGS, hasAny } from '../td/features.ts';
import { LAST_TD_EXIT, TDCS, TDR, TDVPS, VCPU_STATE, XBUFF_XCOMP_BV, XBUFF_XSTATE_BV } from '../td/layout.ts';
import { leaveEpoch } from '../td/vcpu.ts';
import { VMCS } from '../td/vmcs.ts';
import type { RunningVcpu } from './running-vcpu.ts';
import { updateVcpuStateDetails } from './vcpu-state-details.ts';

/** Status bits that decide what becomes of the vCPU. */
const NON_RECOVERABLE = 1n << 62n;
const FATAL = 1n << 61n;
const HINT = 1n << 60n;

/** TD exit qualification: number of the VM in bits 33:32, and a hint that the vCPU wants to run soon. */
const VM_MASK = 0b11n << 32n;
const RESUME_HINT = 1n << 63n;
const COMPACTED = 1n << 63n;
/** Instructions that the fixed counter shows after any exit: single-step attacks are not modelled. */
const INSTRUCTIONS_RETIRED = 100_000n;
const PERF_GLOBAL_STATUS_MSR = 0x38e;

/** RFLAGS.TF, IA32_DEBUGCTL.BTF, and the single-step bit of pending debug exceptions. */
const RFLAGS_TF = 1 << 8;
const DEBUGCTL_BTF = 1 << 1;
const PENDING_DEBUG_BS = 1 << 14;
const BLOCKING_BY_STI_OR_MOV_SS = 0b11;

/** What the host learns of an exit beside its status. @public */
export interface HostDetails {
  /** Exit reason, bits 31:0 of RAX. */
  readonly reason?: number;
  readonly qualification?: bigint;
  readonly extended?: bigint;
  readonly gpa?: bigint;
  readonly interruptionInfo?: number;
}

/** Ends the blocking of events by the STI or MOV SS before the instruction that exited. @internal */
export function clearInstructionBlocking({ vmcs }: RunningVcpu): void {
  const blocking = vmcs.read32(VMCS.GUEST_INTERRUPTIBILITY);
  if ((blocking & BLOCKING_BY_STI_OR_MOV_SS) === 0) return;
  vmcs.writeNumber(VMCS.GUEST_INTERRUPTIBILITY, (blocking & ~BLOCKING_BY_STI_OR_MOV_SS) >>> 0);
}

/** Moves the guest beyond the instruction that exited. @public */
export function advanceRip(vcpu: RunningVcpu): void {
  const { vmcs } = vcpu;
  const length = vmcs.read32(VMCS.EXIT_INSTRUCTION_LENGTH);
  vmcs.write(VMCS.GUEST_RIP, BigInt.asUintN(64, vmcs.read(VMCS.GUEST_RIP) + BigInt(length)));
  clearInstructionBlocking(vcpu);
  const steps =
    (vmcs.read32(VMCS.GUEST_RFLAGS) & RFLAGS_TF) !== 0 &&
    (vmcs.read32(VMCS.GUEST_DEBUGCTL) & DEBUGCTL_BTF) === 0;
  const pending = vmcs.read32(VMCS.GUEST_PENDING_DEBUG);
  if (((pending & PENDING_DEBUG_BS) !== 0) === steps) return;
  vmcs.write(VMCS.GUEST_PENDING_DEBUG, vmcs.read(VMCS.GUEST_PENDING_DEBUG) ^ BigInt(PENDING_DEBUG_BS));
}

/** Zeroes the host's registers; RSP is the host's own, and so is RBP for a TD that promised not to use it. @public */
export function clearHostRegisters(vcpu: RunningVcpu): void {
  const { q } = vcpu.lp.regs;
  const keepsRbp = vcpu.hasConfigFlag(CONFIG_FLAGS.NO_RBP_MOD);
  for (let i = 0; i < q.length; i++) if (i !== RSP && !(i === RBP && keepsRbp)) q[i] = 0n;
}

/** Exits to the host with `status` and what the host may know of the cause. @public */
export function exitToHost(vcpu: RunningVcpu, status: bigint, details: HostDetails = {}): 'left' {
  const { tdvps, td, lp } = vcpu;
  let state = tdvps.u8(TDVPS.VCPU_STATE);
  let lastExit = tdvps.u8(TDVPS.LAST_TD_EXIT);
  const isTrap = hasAny(status, HINT);
  if (hasAny(status, FATAL)) td.tdr.setFlag(TDR.FATAL, true);
  else if (hasAny(status, NON_RECOVERABLE)) state = VCPU_STATE.DISABLED;
  else {
    lastExit = isTrap ? LAST_TD_EXIT.ASYNC_TRAP : LAST_TD_EXIT.ASYNC_FAULT;
    state = VCPU_STATE.READY;
  }
  const busLocked = vcpu.busLocked && details.reason !== undefined;
  const reason = ((details.reason ?? 0) | (busLocked ? EXIT_BUS_LOCK : 0)) >>> 0;
  const { q } = lp.regs;
  clearHostRegisters(vcpu);
  q[RAX] = status | BigInt(reason);
  q[RCX] = (details.qualification ?? 0n) & ~VM_MASK;
  q[RDX] = details.extended ?? 0n;
  q[R8] = details.gpa ?? 0n;
  q[R9] = BigInt(details.interruptionInfo ?? 0);
  const isDead = status === STATUS.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE;
  return leave(vcpu, state, lastExit, isDead, isTrap);
}

/** Exits to the host because of an EPT violation or the like, without an exit reason from the CPU. @public */
export function exitForEptViolation(
  vcpu: RunningVcpu,
  qualification: bigint,
  gpa: bigint,
  extended = 0n,
): 'left' {
  // The host learns nothing of linear addresses: bits 8:7, 12:9 of the qualification.
  const visible = qualification & ~0x1f80n;
  return exitToHost(vcpu, STATUS.TDX_SUCCESS, {
    reason: EXIT.EPT_VIOLATION,
    qualification: visible,
    extended,
    gpa: gpa & ~0xfffn,
  });
}

/**
 * The host's side of TDG.VP.VMCALL: registers in `mask` are the guest's, the others zero; RCX tells which.
 * @public
 */
export function exitForVmcall(vcpu: RunningVcpu, mask: number, xmmMask: number): 'left' {
  const host = vcpu.lp.regs.q;
  const keepsRbp = vcpu.hasConfigFlag(CONFIG_FLAGS.NO_RBP_MOD);
  for (let i = 2; i < host.length; i++) {
    if (i === RSP) continue;
    if (((mask >>> i) & 1) !== 0) host[i] = vcpu.regs.q[i]!;
    else if (i !== RBP || !keepsRbp) host[i] = 0n;
  }
  host[RAX] = BigInt(EXIT.TDCALL | (vcpu.busLocked ? EXIT_BUS_LOCK : 0));
  host[RCX] = BigInt(mask | (xmmMask << 16)) & 0xffff_ffffn;
  return leave(vcpu, VCPU_STATE.READY, LAST_TD_EXIT.TDVMCALL, false, true);
}

/** Performance monitoring as the CPU shows it: the counters of a processor that is not simulated, but for the first. */
function savePerfmon({ tdvps, lp }: RunningVcpu): void {
  tdvps.setU64(TDVPS.IA32_PMC_FX_CTR, INSTRUCTIONS_RETIRED);
  tdvps.setU64(TDVPS.IA32_PERF_GLOBAL_STATUS, lp.rdmsr(PERF_GLOBAL_STATUS_MSR));
}

function leave(vcpu: RunningVcpu, state: number, lastExit: number, isDead: boolean, isTrap: boolean): 'left' {
  const { tdvps, tdcs } = vcpu;
  vcpu.busLocked = false;
  if (!isDead) {
    if (updateVcpuStateDetails(vcpu)) vcpu.lp.regs.q[RCX]! |= RESUME_HINT;
    else vcpu.lp.regs.q[RCX]! &= ~RESUME_HINT;
    vcpu.saveRegisters();
    if (vcpu.hasAttribute(ATTRIBUTES.PERFMON)) savePerfmon(vcpu);
    tdvps.setU8(TDVPS.VCPU_STATE, state);
    tdvps.setU8(TDVPS.LAST_TD_EXIT, lastExit);
    const xfam = tdcs.u64(TDCS.XFAM);
    tdvps.setU64(XBUFF_XSTATE_BV, tdvps.u64(XBUFF_XSTATE_BV) & xfam);
    tdvps.setU64(XBUFF_XCOMP_BV, COMPACTED | xfam);
    if (isTrap) advanceRip(vcpu);
    leaveEpoch(tdcs, tdvps);
  }
  vcpu.leave();
  return 'left';
}
