/** A processor that runs TDs: their VMCS and memory are the module's. */

import { EXIT } from '../../abi/vm-exit.ts';
import { VECTOR_UD } from '../../machine/exceptions.ts';
import { translateGpa } from '../../module/guest/gpa-access.ts';
import { injectVe, VE_CATEGORY } from '../../module/guest/injection.ts';
import { isIntercepted } from '../../module/guest/intercepts.ts';
import type { RunningVcpu } from '../../module/guest/running-vcpu.ts';
import type { VmExit } from '../../module/guest/vm-exit.ts';
import { TDVPS } from '../../module/td/layout.ts';
import { VMCS } from '../../module/td/vmcs.ts';
import {
  ACCESS_LENGTH,
  FIRST_INSTRUCTION,
  lengthOf,
  loadRegisters,
  pageParts,
  QUALIFICATION,
} from './action-access.ts';
import { type GuestAction, GuestCpu, GuestException } from './flow.ts';
import type { Performed, ScriptProcessor } from './script-player.ts';

const EVENT_VALID = 0x8000_0000;
const EVENT_HAS_ERROR_CODE = 1 << 11;
/** A guest that has set itself up: 64-bit code segment, paging, long mode active. */
const LONG_MODE = { csAr: 0xa09b, efer: 0xd01n, cr0: 0x8001_0031n } as const;

/** @internal */
export const TD_PROCESSOR: ScriptProcessor<RunningVcpu, VmExit> = {
  indexOf: ({ tdvps }) => tdvps.u32(TDVPS.VCPU_INDEX),
  registers: ({ regs }) => regs.q,
  rip: ({ vmcs }) => vmcs.read(VMCS.GUEST_RIP),

  begin({ vmcs }) {
    vmcs.writeNumber(VMCS.GUEST_CS_AR, LONG_MODE.csAr);
    vmcs.write(VMCS.GUEST_EFER, LONG_MODE.efer);
    vmcs.write(VMCS.GUEST_CR0, LONG_MODE.cr0);
    vmcs.write(VMCS.GUEST_RIP, FIRST_INSTRUCTION);
  },

  /** Delivers the event that VM entry injects. */
  takeEvent({ vmcs }) {
    const info = vmcs.read32(VMCS.ENTRY_INTERRUPTION_INFO);
    if (info < EVENT_VALID) return null;
    vmcs.writeNumber(VMCS.ENTRY_INTERRUPTION_INFO, info % EVENT_VALID);
    const errorCode = (info & EVENT_HAS_ERROR_CODE) === 0 ? undefined : vmcs.read32(VMCS.ENTRY_ERROR_CODE);
    return new GuestException(info & 0xff, errorCode);
  },

  takeEmulated: () => null,

  perform(vcpu, action) {
    if (action.kind === 'read') return readMemory(vcpu, action.gpa, action.lengthBytes);
    if (action.kind === 'write') return writeMemory(vcpu, action.gpa, action.bytes);
    if (action.kind === 'technology') return undefinedInstruction(vcpu);
    loadRegisters(vcpu.regs.q, action.registers);
    const exit = vmExit(action.reason, action.lengthBytes, action.qualification ?? 0n);
    return isIntercepted(vcpu, exit) ? exit : { answer: vcpu.regs.q.slice() };
  },

  advance({ vmcs }, action) {
    vmcs.write(VMCS.GUEST_RIP, vmcs.read(VMCS.GUEST_RIP) + BigInt(lengthOf(action)));
  },

  /** TDG.VP.VMCALL of Instruction.HLT (GHCI function 12). */
  halt: new GuestCpu(0).vmcall(12n).next().value as GuestAction,
  interrupt: () => vmExit(EXIT.EXTERNAL_INTERRUPT, 0, 0n),
};

function readMemory(vcpu: RunningVcpu, gpa: number, length: number): Performed<VmExit> {
  const bytes = new Uint8Array(length);
  for (const { at, size, done } of pageParts(gpa, length)) {
    const where = translateGpa(vcpu, at, 'read');
    if (where === undefined) return eptViolation(at, QUALIFICATION.read);
    if (where === 'convertible') return convertedViolation(vcpu, at, QUALIFICATION.read);
    bytes.set(vcpu.lp.machine.memory.read(where.address, size, where.keyId), done);
  }
  return { answer: bytes };
}

function writeMemory(vcpu: RunningVcpu, gpa: number, bytes: Uint8Array): Performed<VmExit> {
  for (const { at, size, done } of pageParts(gpa, bytes.length)) {
    const where = translateGpa(vcpu, at, 'write');
    if (where === undefined) return eptViolation(at, QUALIFICATION.write);
    if (where === 'convertible') return convertedViolation(vcpu, at, QUALIFICATION.write);
    vcpu.lp.machine.memory.write(where.address, bytes.subarray(done, done + size), where.keyId);
  }
  return { answer: bytes };
}

/** Delivers #UD without an exit. */
function undefinedInstruction({ vmcs }: RunningVcpu): 'event' {
  vmcs.writeNumber(VMCS.ENTRY_INTERRUPTION_INFO, EVENT_VALID + VECTOR_UD);
  return 'event';
}

/** The CPU tells the guest of the violation in a #VE; while the guest has not read of the last one, the host hears of it. */
function convertedViolation(vcpu: RunningVcpu, gpa: number, access: bigint): Performed<VmExit> {
  const exit = eptViolation(gpa, access);
  if (vcpu.tdvps.u32(TDVPS.VE_VALID) !== 0) return exit;
  injectVe(vcpu, VE_CATEGORY.ARCH, exit);
  return 'event';
}

function eptViolation(gpa: number, access: bigint): VmExit {
  return vmExit(EXIT.EPT_VIOLATION, ACCESS_LENGTH, access | QUALIFICATION.linear, BigInt(gpa));
}

/** Scripts run without paging: linear addresses are guest physical ones. */
function vmExit(reason: number, instructionLength: number, qualification: bigint, address = 0n): VmExit {
  return {
    reason,
    qualification,
    linearAddress: address,
    physicalAddress: address,
    interruptionInfo: 0,
    errorCode: 0,
    instructionLength,
    instructionInfo: 0,
    idtVectoringInfo: 0,
  };
}
