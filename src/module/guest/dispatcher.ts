/** What the module makes of a VM exit of a TD's own VM: resume it, inject an event, or exit to the host (module facts 11). */
import { STATUS } from '../../abi/status-codes.ts';
import { EXIT, EXIT_BUS_LOCK, EXIT_ENTRY_FAILED } from '../../abi/vm-exit.ts';
import { fatal } from '../fatal.ts';
import { ATTRIBUTES, hasAny } from '../td/features.ts';
import { TDR, TDVPS } from '../td/layout.ts';
import { VMCS } from '../td/vmcs.ts';
import { crAccessExit, xsetbvExit } from './control-registers.ts';
import { cpuidExit } from './cpuid-exit.ts';
import { eptMisconfigurationExit, eptViolationExit } from './ept-exits.ts';
import {
  injectGp,
  injectUd,
  injectVe,
  isEventInjected,
  isInjectionIntercepted,
  nmiWindowExit,
  requestNmiWindow,
  VE_CATEGORY,
  type VeCategory,
} from './injection.ts';
import { rdmsrExit, wrmsrExit } from './msr-access.ts';
import type { RunningVcpu } from './running-vcpu.ts';
import { advanceRip, exitToHost } from './td-exit.ts';
import { tdcallExit } from './tdcall.ts';
import type { ExitResult, GuestOutcome, VmExit } from './vm-exit.ts';
import { forgetFaultsOnProgress } from './zero-step.ts';

type ExitHandler = (vcpu: RunningVcpu, exit: VmExit) => ExitResult;

const VALID = 0x8000_0000;
const TYPE_MASK = 0x700;
const NMI_TYPE = 0x200;
const ERROR_CODE_VALID = 1 << 11;
/** Bits of interruption information that an event to inject has. */
const INJECTABLE = 0x8000_0fff;
const VECTOR_MC = 18;
const BLOCKING_BY_NMI = 1 << 3;
/** Qualification of a machine check that came as an SMI, and of a notification. */
const SMI_IS_MACHINE_CHECK = 1n;
const CONTEXT_INVALID = 1n;
const NMI_UNBLOCKED_BY_IRET = 1n << 12n;

const succeed: ExitHandler = (vcpu, { reason, qualification }) =>
  exitToHost(vcpu, STATUS.TDX_SUCCESS, { reason, qualification });

const succeedWithInfo: ExitHandler = (vcpu, { reason, qualification, interruptionInfo }) =>
  exitToHost(vcpu, STATUS.TDX_SUCCESS, { reason, qualification, interruptionInfo });

function raise(inject: (vcpu: RunningVcpu, exit: VmExit) => void): ExitHandler {
  return (vcpu, exit) => {
    inject(vcpu, exit);
    return 'handled';
  };
}

function raiseVe(category: VeCategory): ExitHandler {
  return (vcpu, { reason, qualification }) => {
    injectVe(vcpu, category, { reason, qualification });
    return 'handled';
  };
}

/** What no TD should do: the debugger of a debug TD hears of it, another TD ends. */
const unexpected: ExitHandler = (vcpu, { reason, qualification }) => {
  const status = vcpu.hasAttribute(ATTRIBUTES.DEBUG) ? STATUS.TDX_SUCCESS : STATUS.TDX_NON_RECOVERABLE_TD;
  return exitToHost(vcpu, status, { reason, qualification });
};

function debuggerOnly(exit: ExitHandler): ExitHandler {
  return (vcpu, event) =>
    vcpu.hasAttribute(ATTRIBUTES.DEBUG)
      ? exit(vcpu, event)
      : fatal(`unexpected VM exit ${event.reason & 0xffff}`);
}

const HANDLERS: ReadonlyMap<number, ExitHandler> = new Map([
  ...[EXIT.IO, EXIT.HLT, EXIT.INVD, EXIT.VMCALL, EXIT.WBINVD, EXIT.APIC_WRITE].map(
    (reason) => [reason, raiseVe(VE_CATEGORY.NON_CONFIG_PARAVIRT)] as const,
  ),
  [EXIT.PCONFIG, raiseVe(VE_CATEGORY.CONFIG_PARAVIRT)],
  ...[
    EXIT.GETSEC,
    EXIT.RSM,
    EXIT.VMCLEAR,
    EXIT.VMLAUNCH,
    EXIT.VMPTRLD,
    EXIT.VMPTRST,
    EXIT.VMREAD,
    EXIT.VMRESUME,
    EXIT.VMWRITE,
    EXIT.VMXOFF,
    EXIT.VMXON,
    EXIT.INVEPT,
    EXIT.INVVPID,
    EXIT.VMFUNC,
    EXIT.ENCLS,
    EXIT.ENCLV,
    EXIT.ENQCMDS,
    EXIT.SEAMCALL,
    EXIT.MWAIT,
    EXIT.MONITOR,
  ].map((reason) => [reason, raise(injectUd)] as const),
  [EXIT.ENQCMD, raise(injectGp)],
  [EXIT.TASK_SWITCH, succeed],
  [EXIT.BUS_LOCK, succeed],
  [EXIT.INIT, succeed],
  [EXIT.EXTERNAL_INTERRUPT, succeedWithInfo],
  [EXIT.C_STATE_SMI, succeedWithInfo],
  [EXIT.PML_FULL, debuggerOnly(succeed)],
  [EXIT.NOTIFICATION, notificationExit],
  [
    EXIT.TRIPLE_FAULT,
    (vcpu, { reason, qualification }) =>
      exitToHost(vcpu, STATUS.TDX_NON_RECOVERABLE_VCPU, { reason, qualification }),
  ],
  [EXIT.SMI, smiExit],
  [EXIT.RDPMC, rdpmcExit],
  [EXIT.EPT_MISCONFIGURATION, eptMisconfigurationExit],
  [EXIT.EPT_VIOLATION, eptViolationExit],
  [EXIT.CPUID, raise(cpuidExit)],
  [EXIT.XSETBV, raise(xsetbvExit)],
  [EXIT.RDMSR, raise(rdmsrExit)],
  [EXIT.WRMSR, raise(wrmsrExit)],
  [EXIT.CR_ACCESS, (vcpu, exit) => (crAccessExit(vcpu, exit) ? 'handled' : unexpected(vcpu, exit))],
  [EXIT.EXCEPTION_OR_NMI, exceptionExit],
  [EXIT.TDCALL, tdcallExit],
  [EXIT.NMI_WINDOW, raise(nmiWindowExit)],
]);

/** Handles one VM exit. The guest's registers are in `vcpu.regs`, its other state in the VMCS. @public */
export function deliverExit(vcpu: RunningVcpu, exit: VmExit): GuestOutcome {
  const result = prologue(vcpu, exit) ?? (HANDLERS.get(exit.reason & 0xffff) ?? unexpected)(vcpu, exit);
  if (result === 'left') return 'exited';
  if (epilogue(vcpu, result) === 'left') return 'exited';
  return isEventInjected(vcpu) ? 'injected' : 'resumed';
}

/** What comes before the handling of any exit; a result ends it. */
function prologue(vcpu: RunningVcpu, exit: VmExit): ExitResult | undefined {
  const { tdvps, lp, td } = vcpu;
  const { reason, qualification, interruptionInfo } = exit;
  recordExit(vcpu, exit);
  tdvps.setU64(TDVPS.LAST_EXIT_TSC, lp.rdtsc());
  tdvps.setFlag(TDVPS.NMI_UNBLOCKING_DUE_TO_IRET, false);
  if (reason < EXIT_ENTRY_FAILED) tdvps.setU8(TDVPS.VM_LAUNCHED, 1);
  if (td.tdr.flag(TDR.FATAL)) {
    const details = { reason, qualification, interruptionInfo };
    return exitToHost(vcpu, STATUS.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE, details);
  }
  if ((reason & EXIT_BUS_LOCK) !== 0) vcpu.busLocked = true;
  forgetFaultsOnProgress(vcpu);
  if (exit.idtVectoringInfo >= VALID) {
    const left = reinject(vcpu, exit);
    if (left !== undefined) return left;
  }
  return reason >= EXIT_ENTRY_FAILED ? entryFailure(vcpu, exit) : undefined;
}

function recordExit({ vmcs }: RunningVcpu, exit: VmExit): void {
  vmcs.writeNumber(VMCS.EXIT_REASON, exit.reason);
  vmcs.write(VMCS.EXIT_QUALIFICATION, exit.qualification);
  vmcs.write(VMCS.EXIT_LINEAR_ADDRESS, exit.linearAddress);
  vmcs.write(VMCS.GUEST_PHYSICAL_ADDRESS, exit.physicalAddress);
  vmcs.writeNumber(VMCS.EXIT_INTERRUPTION_INFO, exit.interruptionInfo);
  vmcs.writeNumber(VMCS.EXIT_ERROR_CODE, exit.errorCode);
  vmcs.writeNumber(VMCS.IDT_VECTORING_INFO, exit.idtVectoringInfo);
  vmcs.writeNumber(VMCS.EXIT_INSTRUCTION_LENGTH, exit.instructionLength);
  vmcs.writeNumber(VMCS.EXIT_INSTRUCTION_INFO, exit.instructionInfo);
  const injected = vmcs.read32(VMCS.ENTRY_INTERRUPTION_INFO);
  vmcs.writeNumber(VMCS.ENTRY_INTERRUPTION_INFO, injected % VALID);
}

/** An event whose delivery the exit interrupted is delivered again. */
function reinject(vcpu: RunningVcpu, exit: VmExit): ExitResult | undefined {
  const { vmcs } = vcpu;
  const basic = exit.reason & 0xffff;
  if (basic !== EXIT.TASK_SWITCH && basic !== EXIT.EPT_VIOLATION && basic !== EXIT.EPT_MISCONFIGURATION) {
    return debuggerOnly(succeed)(vcpu, exit);
  }
  const info = exit.idtVectoringInfo;
  if ((info & TYPE_MASK) === NMI_TYPE) {
    const blocking = vmcs.read32(VMCS.GUEST_INTERRUPTIBILITY);
    vmcs.writeNumber(VMCS.GUEST_INTERRUPTIBILITY, blocking & ~BLOCKING_BY_NMI);
  }
  vmcs.writeNumber(VMCS.ENTRY_INTERRUPTION_INFO, (info & INJECTABLE) >>> 0);
  if ((info & ERROR_CODE_VALID) !== 0) {
    vmcs.write(VMCS.ENTRY_ERROR_CODE, vmcs.read(VMCS.IDT_VECTORING_ERROR_CODE));
  }
  vmcs.writeNumber(VMCS.ENTRY_INSTRUCTION_LENGTH, exit.instructionLength);
  return undefined;
}

function entryFailure(vcpu: RunningVcpu, exit: VmExit): ExitResult {
  const { reason, qualification } = exit;
  const basic = reason & 0xffff;
  if (basic === EXIT.ENTRY_FAILED_GUEST_STATE) return unexpected(vcpu, exit);
  if (basic !== EXIT.ENTRY_FAILED_MACHINE_CHECK) return fatal(`VM entry failed with exit reason ${basic}`);
  return exitToHost(vcpu, STATUS.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE, { reason, qualification });
}

/** What follows the handling of an exit when the guest goes on. */
function epilogue(vcpu: RunningVcpu, result: ExitResult): 'left' | undefined {
  if (result === 'handled' && !isEventInjected(vcpu)) {
    requestNmiWindow(vcpu);
    advanceRip(vcpu);
  }
  if (vcpu.busLocked) return exitToHost(vcpu, STATUS.TDX_SUCCESS, { reason: EXIT.BUS_LOCK });
  if (vcpu.hasAttribute(ATTRIBUTES.DEBUG) && isInjectionIntercepted(vcpu)) {
    const interruptionInfo = vcpu.vmcs.read32(VMCS.ENTRY_INTERRUPTION_INFO);
    return exitToHost(vcpu, STATUS.TDX_SUCCESS, { reason: EXIT.EXCEPTION_OR_NMI, interruptionInfo });
  }
  return undefined;
}

function notificationExit(vcpu: RunningVcpu, { reason, qualification }: VmExit): ExitResult {
  const { vmcs } = vcpu;
  if (hasAny(qualification, NMI_UNBLOCKED_BY_IRET)) {
    vmcs.writeNumber(VMCS.GUEST_INTERRUPTIBILITY, vmcs.read32(VMCS.GUEST_INTERRUPTIBILITY) | BLOCKING_BY_NMI);
  }
  const status = hasAny(qualification, CONTEXT_INVALID) ? STATUS.TDX_NON_RECOVERABLE_TD : STATUS.TDX_SUCCESS;
  return exitToHost(vcpu, status, { reason, qualification });
}

function smiExit(vcpu: RunningVcpu, exit: VmExit): ExitResult {
  if (!hasAny(exit.qualification, SMI_IS_MACHINE_CHECK)) return succeedWithInfo(vcpu, exit);
  return machineCheck(vcpu, exit);
}

function machineCheck(vcpu: RunningVcpu, { reason, qualification, interruptionInfo }: VmExit): ExitResult {
  const details = { reason, qualification, interruptionInfo };
  return exitToHost(vcpu, STATUS.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE, details);
}

function rdpmcExit(vcpu: RunningVcpu, exit: VmExit): ExitResult {
  return vcpu.hasAttribute(ATTRIBUTES.PERFMON)
    ? debuggerOnly(succeed)(vcpu, exit)
    : raise(injectGp)(vcpu, exit);
}

function exceptionExit(vcpu: RunningVcpu, exit: VmExit): ExitResult {
  if ((exit.interruptionInfo & TYPE_MASK) === NMI_TYPE) return succeedWithInfo(vcpu, exit);
  if ((exit.interruptionInfo & 0xff) === VECTOR_MC) return machineCheck(vcpu, exit);
  return debuggerOnly(succeedWithInfo)(vcpu, exit);
}
