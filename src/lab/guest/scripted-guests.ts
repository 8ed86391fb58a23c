/** Runs scripts as the guests of a module: what hardware does between a VM entry and the next VM exit. */
import { PAGE_4K } from '../../abi/address.ts';
import { REGISTER_NAMES, type RegisterName } from '../../abi/registers.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { deliverExit } from '../../module/guest/dispatcher.ts';
import { translateGpa } from '../../module/guest/gpa-access.ts';
import type { GuestRunner } from '../../module/guest/guest-runner.ts';
import { isIntercepted } from '../../module/guest/intercepts.ts';
import type { RunningVcpu } from '../../module/guest/running-vcpu.ts';
import type { GuestOutcome, VmExit } from '../../module/guest/vm-exit.ts';
import { TDVPS } from '../../module/td/layout.ts';
import { VMCS } from '../../module/td/vmcs.ts';
import type { TdxModule } from '../../module/tdx-module.ts';
import {
  type GuestAction,
  type GuestAnswer,
  GuestCpu,
  GuestException,
  type GuestFlow,
  type GuestScript,
} from './flow.ts';
import { RegisterSnapshots } from './register-snapshots.ts';

const REGISTER_NUMBERS = Object.fromEntries(REGISTER_NAMES.map((name, i) => [name, i])) as Readonly<
  Record<RegisterName, number>
>;
const EVENT_VALID = 0x8000_0000;
const EVENT_HAS_ERROR_CODE = 1 << 11;
/** A guest that has set itself up: 64-bit code segment, paging, long mode active. */
const LONG_MODE = { csAr: 0xa09b, efer: 0xd01n, cr0: 0x8001_0031n } as const;
/** The reset vector is 32-bit code, so the script begins elsewhere. */
const FIRST_INSTRUCTION = 0x40_1000n;
/** Length of a memory access, and its exit qualification bits: read, write, linear address valid and final. */
const ACCESS_LENGTH = 3;
const QUALIFICATION = { read: 1n << 0n, write: 1n << 1n, linear: 0b11n << 7n } as const;

interface Guest {
  readonly flow: GuestFlow;
  /** What the script waits for, and the RIP it was begun at. */
  pending: { readonly action: GuestAction; readonly rip: bigint } | null;
  /** Answer to an action that needed no VM exit. */
  answer: GuestAnswer | null;
  done: boolean;
}

/** @public */
export class ScriptedGuests implements GuestRunner {
  readonly #scripts = new Map<number, GuestScript>();
  readonly #guests = new Map<number, Guest>();
  readonly #snapshots = new RegisterSnapshots();

  /** Gives the vCPU whose TDVPR is at `address` its script. */
  set(address: number, script: GuestScript): void {
    this.#scripts.set(address, script);
    this.#guests.delete(address);
  }

  /** True once the script of this vCPU has returned. */
  isDone(address: number): boolean {
    return this.#guests.get(address)?.done === true;
  }

  /** Runs the vCPU to its next VM exit. A script that has returned asks the host for HLT, again and again. */
  run(vcpu: RunningVcpu): VmExit {
    const guest = this.#guestOf(vcpu);
    for (;;) {
      const action = this.#nextAction(guest, vcpu);
      guest.pending = { action, rip: vcpu.vmcs.read(VMCS.GUEST_RIP) };
      const result = perform(vcpu, action);
      if ('reason' in result) return result;
      advance(vcpu, action);
      guest.answer = result.answer;
    }
  }

  /** Runs one VM exit of the vCPU entered on `lp`, for a host that lets LPs take turns. */
  step(lp: LogicalProcessor): GuestOutcome {
    const vcpu = (lp.machine.seam.module as TdxModule).running[lp.index];
    if (vcpu === undefined) throw new Error(`no vCPU is entered on LP ${lp.index}`);
    return deliverExit(vcpu, this.run(vcpu));
  }

  #guestOf(vcpu: RunningVcpu): Guest {
    const known = this.#guests.get(vcpu.address);
    if (known !== undefined) return known;
    const script = this.#scripts.get(vcpu.address);
    if (script === undefined) throw new Error(`vCPU 0x${vcpu.address.toString(16)} has no script`);
    const index = vcpu.tdvps.u32(TDVPS.VCPU_INDEX);
    const guest: Guest = { flow: script(new GuestCpu(index)), pending: null, answer: null, done: false };
    this.#guests.set(vcpu.address, guest);
    enterLongMode(vcpu);
    return guest;
  }

  /** The next thing the script wants, after it heard what came of the last. */
  #nextAction(guest: Guest, vcpu: RunningVcpu): GuestAction {
    const event = takeEvent(vcpu);
    const { pending } = guest;
    if (event === null && pending !== null && isToBeRepeated(pending, vcpu)) return pending.action;
    const answer = guest.answer ?? this.#snapshots.take(vcpu.regs.q);
    guest.answer = null;
    if (guest.done) return haltAction();
    // The script's handler of a fault returns behind the instruction.
    if (event !== null && pending !== null) advance(vcpu, pending.action);
    const step = event === null ? guest.flow.next(answer) : guest.flow.throw(event);
    if (step.done !== true) return step.value;
    guest.done = true;
    return haltAction();
  }
}

/** The instruction did not complete: what it needed is there now, or the host is to be asked again. */
function isToBeRepeated({ action, rip }: NonNullable<Guest['pending']>, { vmcs }: RunningVcpu): boolean {
  const isInterrupt = action.kind === 'instruction' && action.reason === EXIT.EXTERNAL_INTERRUPT;
  return !isInterrupt && rip === vmcs.read(VMCS.GUEST_RIP);
}

/** TDG.VP.VMCALL of Instruction.HLT (GHCI function 12). */
function haltAction(): GuestAction {
  return new GuestCpu(0).vmcall(12n).next().value as GuestAction;
}

function enterLongMode({ vmcs }: RunningVcpu): void {
  vmcs.writeNumber(VMCS.GUEST_CS_AR, LONG_MODE.csAr);
  vmcs.write(VMCS.GUEST_EFER, LONG_MODE.efer);
  vmcs.write(VMCS.GUEST_CR0, LONG_MODE.cr0);
  vmcs.write(VMCS.GUEST_RIP, FIRST_INSTRUCTION);
}

/** Delivers the event that VM entry injects, if there is one. */
function takeEvent({ vmcs }: RunningVcpu): GuestException | null {
  const info = vmcs.read32(VMCS.ENTRY_INTERRUPTION_INFO);
  if (info < EVENT_VALID) return null;
  vmcs.writeNumber(VMCS.ENTRY_INTERRUPTION_INFO, info % EVENT_VALID);
  const errorCode = (info & EVENT_HAS_ERROR_CODE) === 0 ? undefined : vmcs.read32(VMCS.ENTRY_ERROR_CODE);
  return new GuestException(info & 0xff, errorCode);
}

function advance({ vmcs }: RunningVcpu, action: GuestAction): void {
  const length = action.kind === 'instruction' ? action.lengthBytes : ACCESS_LENGTH;
  vmcs.write(VMCS.GUEST_RIP, vmcs.read(VMCS.GUEST_RIP) + BigInt(length));
}

/** What the CPU does: the answer, or the VM exit that the action comes to. */
function perform(vcpu: RunningVcpu, action: GuestAction): VmExit | { readonly answer: GuestAnswer } {
  if (action.kind === 'read') return readMemory(vcpu, action.gpa, action.lengthBytes);
  if (action.kind === 'write') return writeMemory(vcpu, action.gpa, action.bytes);
  const { registers } = action;
  for (const name in registers) {
    vcpu.regs.q[REGISTER_NUMBERS[name as RegisterName]] = registers[name as RegisterName]!;
  }
  const exit = vmExit(action.reason, action.lengthBytes, action.qualification ?? 0n);
  if (isIntercepted(vcpu, exit)) return exit;
  return { answer: vcpu.regs.q.slice() };
}

function readMemory(
  vcpu: RunningVcpu,
  gpa: number,
  length: number,
): VmExit | { readonly answer: GuestAnswer } {
  const bytes = new Uint8Array(length);
  for (const { at, size, done } of pageParts(gpa, length)) {
    const where = translateGpa(vcpu, at, 'read');
    if (where === undefined) return eptViolation(at, QUALIFICATION.read);
    bytes.set(vcpu.lp.machine.memory.read(where.address, size, where.keyId), done);
  }
  return { answer: bytes };
}

function writeMemory(
  vcpu: RunningVcpu,
  gpa: number,
  bytes: Uint8Array,
): VmExit | { readonly answer: GuestAnswer } {
  for (const { at, size, done } of pageParts(gpa, bytes.length)) {
    const where = translateGpa(vcpu, at, 'write');
    if (where === undefined) return eptViolation(at, QUALIFICATION.write);
    vcpu.lp.machine.memory.write(where.address, bytes.subarray(done, done + size), where.keyId);
  }
  return { answer: bytes };
}

function* pageParts(gpa: number, length: number): Generator<{ at: number; size: number; done: number }> {
  for (let done = 0; done < length; ) {
    const at = gpa + done;
    const size = Math.min(PAGE_4K - (at % PAGE_4K), length - done);
    yield { at, size, done };
    done += size;
  }
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
