/** Events that the module injects into a guest at the next VM entry (module facts 11). */
import { TDVPS } from '../td/layout.ts';
import { VMCS } from '../td/vmcs.ts';
import type { RunningVcpu } from './running-vcpu.ts';

/** Interruption information: valid, hardware exception; bit 11 where an error code is delivered. */
const VALID = 0x8000_0000;
const HARDWARE_EXCEPTION = 3 << 8;
const NMI_TYPE = 2 << 8;
const ERROR_CODE = 1 << 11;
const TYPE_AND_VECTOR = 0x7ff;

const VECTOR = { NMI: 2, UD: 6, DF: 8, GP: 13, PF: 14, VE: 20 } as const;

/** Why a #VE is injected. @public */
export const VE_CATEGORY = {
  ARCH: 0,
  PENDING: 1,
  RESERVED_GPA_BITS: 2,
  CONFIG_PARAVIRT: 0x10,
  NON_CONFIG_PARAVIRT: 0x11,
  UNSUPPORTED_FEATURE: 0x80,
} as const;

/** @public */
export type VeCategory = (typeof VE_CATEGORY)[keyof typeof VE_CATEGORY];

/** What an instruction is refused with: #GP(0), or a #VE of a category. @public */
export type Refusal = 'gp' | VeCategory;

const ALL_VALID = 0xffff_ffff;
const RFLAGS_RF = 1n << 16n;
const CR0_PE = 1n;

/** What a #VE reports beside its category. @public */
export interface VeCause {
  readonly reason: number;
  readonly qualification?: bigint;
  readonly physicalAddress?: bigint;
  readonly linearAddress?: bigint;
}

/** Error codes exist in protected mode only. */
function errorCodeBit({ vmcs }: RunningVcpu): number {
  return (vmcs.read(VMCS.GUEST_CR0) & CR0_PE) !== 0n ? ERROR_CODE : 0;
}

/** The faulting instruction is not stopped again by a breakpoint when it is restarted. */
function setResumeFlag({ vmcs }: RunningVcpu): void {
  vmcs.write(VMCS.GUEST_RFLAGS, vmcs.read(VMCS.GUEST_RFLAGS) | RFLAGS_RF);
}

/** @public */
export function injectUd(vcpu: RunningVcpu): void {
  setResumeFlag(vcpu);
  vcpu.vmcs.writeNumber(VMCS.ENTRY_INTERRUPTION_INFO, VALID + (HARDWARE_EXCEPTION | VECTOR.UD));
}

/** #GP(0). @public */
export function injectGp(vcpu: RunningVcpu): void {
  setResumeFlag(vcpu);
  injectWithErrorCode(vcpu, VECTOR.GP, 0);
}

function injectNmi({ vmcs }: RunningVcpu): void {
  vmcs.writeNumber(VMCS.ENTRY_INTERRUPTION_INFO, VALID + (NMI_TYPE | VECTOR.NMI));
}

const NMI_WINDOW_EXITING = 1 << 22;

/** Has the guest exit as soon as it can take the NMI that waits for it, unless it must handle a #VE first. @public */
export function requestNmiWindow({ vmcs, tdvps }: RunningVcpu): void {
  if (!tdvps.flag(TDVPS.PEND_NMI) || tdvps.u32(TDVPS.VE_VALID) !== 0) return;
  const controls = vmcs.read32(VMCS.PROCBASED_CTLS) | NMI_WINDOW_EXITING;
  vmcs.writeNumber(VMCS.PROCBASED_CTLS, controls >>> 0);
}

/** The guest can take an NMI: injects the one that waits, if it still may. @public */
export function nmiWindowExit(vcpu: RunningVcpu): void {
  const { vmcs, tdvps } = vcpu;
  if (tdvps.flag(TDVPS.PEND_NMI) && tdvps.u32(TDVPS.VE_VALID) === 0) {
    injectNmi(vcpu);
    tdvps.setFlag(TDVPS.PEND_NMI, false);
  }
  const controls = vmcs.read32(VMCS.PROCBASED_CTLS) & ~NMI_WINDOW_EXITING;
  vmcs.writeNumber(VMCS.PROCBASED_CTLS, controls >>> 0);
}

function injectDf(vcpu: RunningVcpu): void {
  injectWithErrorCode(vcpu, VECTOR.DF, 0);
}

function injectWithErrorCode(vcpu: RunningVcpu, vector: number, errorCode: number): void {
  const info = VALID + (HARDWARE_EXCEPTION | vector | errorCodeBit(vcpu));
  vcpu.vmcs.writeNumber(VMCS.ENTRY_INTERRUPTION_INFO, info);
  vcpu.vmcs.writeNumber(VMCS.ENTRY_ERROR_CODE, errorCode);
}

/** #VE with its details where TDG.VP.VEINFO.GET finds them; #DF while the guest has not read those of the last one. @public */
export function injectVe(vcpu: RunningVcpu, category: VeCategory, cause: VeCause): void {
  const { tdvps, vmcs } = vcpu;
  if (tdvps.u32(TDVPS.VE_VALID) !== 0) injectDf(vcpu);
  else {
    tdvps.setU32(TDVPS.VE_EXIT_REASON, cause.reason);
    tdvps.setU64(TDVPS.VE_EXIT_QUALIFICATION, cause.qualification ?? 0n);
    tdvps.setU64(TDVPS.VE_GLA, cause.linearAddress ?? 0n);
    tdvps.setU64(TDVPS.VE_GPA, cause.physicalAddress ?? 0n);
    tdvps.setU16(TDVPS.VE_EPTP_INDEX, 0);
    tdvps.setU8(TDVPS.VE_CATEGORY, category);
    tdvps.setU32(TDVPS.VE_INSTRUCTION_LENGTH, vmcs.read32(VMCS.EXIT_INSTRUCTION_LENGTH));
    tdvps.setU32(TDVPS.VE_INSTRUCTION_INFO, vmcs.read32(VMCS.EXIT_INSTRUCTION_INFO));
    tdvps.setU32(TDVPS.VE_INTERRUPTIBILITY, vmcs.read32(VMCS.GUEST_INTERRUPTIBILITY));
    tdvps.setU32(TDVPS.VE_VALID, ALL_VALID);
    vmcs.writeNumber(VMCS.ENTRY_INTERRUPTION_INFO, VALID + (HARDWARE_EXCEPTION | VECTOR.VE));
  }
  setResumeFlag(vcpu);
}

/** Injects what an instruction is refused with. @public */
export function refuse(vcpu: RunningVcpu, refusal: Refusal, cause: VeCause): void {
  if (refusal === 'gp') injectGp(vcpu);
  else injectVe(vcpu, refusal, cause);
}

/**
 * #PF, or what the CPU makes of it beside the event that is already to be injected: #DF after #PF or #VE. Returns
 * false for a triple fault, with nothing injected. @public
 */
export function injectPf(vcpu: RunningVcpu, linearAddress: bigint, errorCode: number): boolean {
  vcpu.tdvps.setU64(TDVPS.CR2, linearAddress);
  const pending = pendingException(vcpu);
  if (pending === VECTOR.DF) return false;
  if (pending === VECTOR.PF || pending === VECTOR.VE) injectDf(vcpu);
  else injectWithErrorCode(vcpu, VECTOR.PF, errorCode);
  setResumeFlag(vcpu);
  return true;
}

/** Vector of the hardware exception that will be injected, or -1. */
function pendingException({ vmcs }: RunningVcpu): number {
  const info = vmcs.read32(VMCS.ENTRY_INTERRUPTION_INFO);
  const isException = info >= VALID && (info & TYPE_AND_VECTOR & ~0xff) === HARDWARE_EXCEPTION;
  return isException ? info & 0xff : -1;
}

/** True when an event will be injected at the next entry. @public */
export function isEventInjected({ vmcs }: RunningVcpu): boolean {
  return vmcs.read32(VMCS.ENTRY_INTERRUPTION_INFO) >= VALID;
}

/** True when the event to be injected is an exception that the debugger of a debug TD intercepts. @public */
export function isInjectionIntercepted(vcpu: RunningVcpu): boolean {
  const vector = pendingException(vcpu);
  if (vector < 0) return false;
  const { vmcs } = vcpu;
  if (((vmcs.read32(VMCS.EXCEPTION_BITMAP) >>> vector) & 1) === 0) return false;
  if (vector !== VECTOR.PF) return true;
  const code = vmcs.read32(VMCS.EXIT_ERROR_CODE) & vmcs.read32(VMCS.PAGE_FAULT_MASK);
  return code === vmcs.read32(VMCS.PAGE_FAULT_MATCH);
}
