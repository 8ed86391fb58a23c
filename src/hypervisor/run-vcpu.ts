/** Running a vCPU: what the host says at an entry, the guest itself, what the host learns of its exit. */
import { PAGE_4K, pfnOf } from '../abi/address.ts';
import { ERRNO } from '../abi/errno.ts';
import {
  CALL_NEEDS,
  GUEST_CALL,
  GUEST_PROT,
  HOST_VCPU,
  HOST_VCPU_DATA,
  SMCCC,
  setSignedRegister,
  X,
} from '../abi/pkvm.ts';
import type { ValuesOf } from '../abi/struct.ts';
import { EXIT } from '../abi/vm-exit.ts';
import { VECTOR_UD } from '../machine/exceptions.ts';
import type { GuestAccessKind, GuestContext, GuestExit, GuestPhysical } from '../machine/guest-code.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import type { PhysicalMemory } from '../machine/memory.ts';
import {
  ALL_REGISTERS,
  CALL_ANSWER,
  HIDDEN,
  type VisibleRegisters,
  visibleRegisters,
} from './exit-registers.ts';
import { guestHvc } from './guest-calls.ts';
import { guestUnshareHost } from './guest-transitions.ts';
import type { Ownership } from './ownership.ts';
import { PAGE_STATE } from './page-state.ts';
import type { HypVcpu } from './vm.ts';
import { refillMemcache } from './vm-life.ts';

type HostPage = ValuesOf<typeof HOST_VCPU>;

const ACCESS_READ = 1n;
const ACCESS_WRITE = 2n;
/** Exit qualification of a stage-2 fault, as on other machines: read, write, fetch. */
const QUALIFICATION = { read: 1n, write: 2n, execute: 4n } as const;
const NEEDED = { read: GUEST_PROT.read, write: GUEST_PROT.write, execute: GUEST_PROT.execute } as const;

/** Runs the guest until something must go to the host. @internal */
export function runVcpu(o: Ownership, vcpu: HypVcpu, lp: LogicalProcessor): number {
  const { memory } = o.machine;
  if (vcpu.pendingCall?.needs === CALL_NEEDS.tables) refillMemcache(o, vcpu);
  const page = HOST_VCPU.decode(memory.read(vcpu.hostPfn * PAGE_4K, HOST_VCPU.bytes, 0));
  takeEntry(o, vcpu, page, memory);
  vcpu.hasRun = true;
  vcpu.exit = null;
  vcpu.pendingCall = null;
  const exit = lp.runGuest(new PkvmGuestContext(o, vcpu, lp));
  vcpu.exit = exit;
  showExit(vcpu, page, exit, memory);
  return 0;
}

/** Takes over what the host may say. */
function takeEntry(o: Ownership, vcpu: HypVcpu, page: HostPage, memory: PhysicalMemory): void {
  const { exit, vm } = vcpu;
  const isFirst = !vcpu.hasRun;
  const visible = answerable(vcpu);
  const isOpen = !vm.isProtected || isFirst;
  for (const register of isOpen ? ALL_REGISTERS : visible.in) vcpu.regs.q[register] = page.regs[register]!;
  if (isOpen) vcpu.rip = page.rip;
  if (page.injectVector !== 0n && (!vm.isProtected || visible.mayInject)) {
    vcpu.inject = { vector: Number(page.injectVector) - 1, errorCode: Number(page.injectErrorCode) };
  }
  if (exit === null) return;
  if (vcpu.pendingCall !== null && vm.isProtected) completeCall(o, vcpu, exit);
  else if (page.skipInstruction !== 0n) vcpu.rip += BigInt(exit.instructionLengthBytes);
  const { access } = exit;
  const isEmulated = page.emulated !== 0n && access !== undefined && page.accessKind !== 0n;
  vcpu.emulated = isEmulated
    ? memory.read(vcpu.hostPfn * PAGE_4K + HOST_VCPU_DATA.offset, access.lengthBytes, 0)
    : null;
}

/** What the host may answer to the last exit of a protected guest. */
function answerable({ exit, pendingCall }: HypVcpu): VisibleRegisters {
  if (exit === null || (pendingCall !== null && pendingCall.needs !== CALL_NEEDS.nothing)) return HIDDEN;
  const isOurs = pendingCall?.call === GUEST_CALL.memShare || pendingCall?.call === GUEST_CALL.memUnshare;
  return isOurs ? CALL_ANSWER : visibleRegisters(exit.reason);
}

/** The end of a call that the host had to see. Unsharing waits for the host's word that it lets go of the page. */
function completeCall(o: Ownership, vcpu: HypVcpu, exit: GuestExit): void {
  const { call, gfn, needs } = vcpu.pendingCall!;
  if (needs !== CALL_NEEDS.nothing) return;
  vcpu.rip += BigInt(exit.instructionLengthBytes);
  if (call === GUEST_CALL.memShare) setSignedRegister(vcpu.regs, X.x0, SMCCC.success);
  if (call !== GUEST_CALL.memUnshare) return;
  const isAgreed = vcpu.regs.q[X.x0] === 0n && guestUnshareHost(o, vcpu.vm, gfn) === 0;
  setSignedRegister(vcpu.regs, X.x0, isAgreed ? SMCCC.success : SMCCC.invalidParameter);
}

/** Tells the host of an exit: everything, or of a protected guest what the exit needs. */
function showExit(vcpu: HypVcpu, page: HostPage, exit: GuestExit, memory: PhysicalMemory): void {
  const { isProtected } = vcpu.vm;
  const shown = isProtected ? visibleRegisters(exit.reason).out : ALL_REGISTERS;
  const regs = new Array<bigint>(ALL_REGISTERS.length).fill(0n);
  for (const register of shown) regs[register] = vcpu.regs.q[register]!;
  const access = shownAccess(vcpu, exit);
  const at = vcpu.hostPfn * PAGE_4K;
  const bytes = HOST_VCPU.encode({
    index: page.index,
    memcacheHead: page.memcacheHead,
    memcachePages: page.memcachePages,
    regs,
    rip: isProtected ? 0n : vcpu.rip,
    exitReason: BigInt(exit.reason),
    exitQualification: exit.qualification,
    exitGpa: BigInt(exit.gpa),
    instructionLength: BigInt(exit.instructionLengthBytes),
    call: BigInt(vcpu.pendingCall?.call ?? 0),
    callNeeds: BigInt(vcpu.pendingCall?.needs ?? CALL_NEEDS.nothing),
    accessKind: access === undefined ? 0n : access.isWrite ? ACCESS_WRITE : ACCESS_READ,
    accessLength: BigInt(access?.lengthBytes ?? 0),
  });
  memory.write(at, bytes, 0);
  if (access?.bytes !== undefined) memory.write(at + HOST_VCPU_DATA.offset, access.bytes, 0);
}

/** What a protected guest reads and writes is nobody's business, unless it said that a device is there. */
function shownAccess({ vm }: HypVcpu, { access, gpa }: GuestExit): GuestExit['access'] {
  if (access === undefined || access.lengthBytes > HOST_VCPU_DATA.bytes) return undefined;
  return vm.isProtected && !vm.stage2.leaf(pfnOf(gpa)).isMmio ? undefined : access;
}

/** A vCPU of pKVM as the processor runs it. */
class PkvmGuestContext implements GuestContext {
  readonly address: number;
  readonly index: number;
  readonly lp: LogicalProcessor;
  readonly #ownership: Ownership;
  readonly #vcpu: HypVcpu;

  constructor(ownership: Ownership, vcpu: HypVcpu, lp: LogicalProcessor) {
    this.address = vcpu.statePfn * PAGE_4K;
    this.index = vcpu.index;
    this.lp = lp;
    this.#ownership = ownership;
    this.#vcpu = vcpu;
  }

  get regs() {
    return this.#vcpu.regs;
  }

  get rip(): bigint {
    return this.#vcpu.rip;
  }

  set rip(value: bigint) {
    this.#vcpu.rip = value;
  }

  get inject() {
    return this.#vcpu.inject;
  }

  set inject(event) {
    this.#vcpu.inject = event;
  }

  get emulated() {
    return this.#vcpu.emulated;
  }

  set emulated(bytes) {
    this.#vcpu.emulated = bytes;
  }

  translate(gpa: number, access: GuestAccessKind): GuestPhysical | GuestExit {
    const { stage2 } = this.#vcpu.vm;
    const gfn = pfnOf(gpa);
    if (stage2.holds(gfn)) {
      const leaf = stage2.leaf(gfn);
      const isMapped = leaf.state !== PAGE_STATE.NOPAGE && leaf.state !== PAGE_STATE.POISON;
      if (isMapped && (leaf.prot & NEEDED[access]) !== 0) {
        return { address: leaf.pfn * PAGE_4K + (gpa - leaf.gfn * PAGE_4K), keyId: 0 };
      }
    }
    return {
      reason: EXIT.EPT_VIOLATION,
      qualification: QUALIFICATION[access],
      gpa,
      instructionLengthBytes: 0,
    };
  }

  instruction(name: string): GuestExit | { readonly vector: number } | 'done' {
    return name === 'hvc' ? guestHvc(this.#ownership, this.#vcpu) : { vector: VECTOR_UD };
  }

  intercepts(): boolean {
    return true;
  }
}

/** 1 when the loaded vCPU's last exit was an access to a page that was taken from the guest, else 0. @internal */
export function isInPoisonFault({ exit, vm }: HypVcpu): number {
  if (exit === null || exit.reason !== EXIT.EPT_VIOLATION) return -ERRNO.EINVAL;
  const gfn = pfnOf(exit.gpa);
  return vm.stage2.holds(gfn) && vm.stage2.leaf(gfn).state === PAGE_STATE.POISON ? 1 : 0;
}
