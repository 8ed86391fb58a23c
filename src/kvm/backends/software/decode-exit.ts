/** Exits of a vCPU whose state the host sees: CPUID and MSRs are answered here, the rest is decoded. */
import { KVM_INTERNAL_ERROR } from '../../../abi/kvm/exits.ts';
import { RAX, RBX, RCX, RDX, RSI } from '../../../abi/registers.ts';
import { EXIT, EXIT_ENTRY_FAILED } from '../../../abi/vm-exit.ts';
import { VECTOR_GP } from '../../../machine/exceptions.ts';
import type { GuestContext, GuestExit } from '../../../machine/guest-code.ts';
import { guestCpuid } from '../../guest-cpuid.ts';
import { hypercall } from '../../hypercall.ts';
import type { Vcpu } from '../../vcpu.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import { RESET_MSRS } from './reset-msrs.ts';

const HANDLED: VcpuExit = { kind: 'handled' };
const LOW_32 = 0xffff_ffffn;
/** Exit qualification of a port access: size less one, IN, string; the port is in bits 31:16. */
const IO = { SIZE: 7n, IN: 1n << 3n, STRING: 1n << 4n, PORT_SHIFT: 16n, PORT: 0xffffn } as const;
/** Exit qualification of an EPT violation: a write, an instruction fetch. */
const WRITE = 1n << 1n;
const FETCH = 1n << 2n;

/** What an exit leaves for the next entry. */
type Entry = Pick<GuestContext, 'inject' | 'emulated'>;
type Handler = (vcpu: Vcpu, context: Entry, exit: GuestExit) => VcpuExit;

const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [EXIT.EXTERNAL_INTERRUPT, () => ({ kind: 'interrupt' })],
  [EXIT.TRIPLE_FAULT, () => ({ kind: 'shutdown' })],
  [EXIT.CPUID, cpuidExit],
  [EXIT.HLT, hltExit],
  [EXIT.VMCALL, vmcallExit],
  [EXIT.IO, ioExit],
  [EXIT.RDMSR, rdmsrExit],
  [EXIT.WRMSR, wrmsrExit],
  [EXIT.EPT_VIOLATION, violation],
]);

/** @internal */
export function decodeExit(vcpu: Vcpu, context: Entry, exit: GuestExit): VcpuExit {
  if (exit.reason >= EXIT_ENTRY_FAILED) return { kind: 'fail-entry', hardwareReason: BigInt(exit.reason) };
  const handler = HANDLERS.get(exit.reason);
  if (handler !== undefined) return handler(vcpu, context, exit);
  const data = [BigInt(exit.reason), BigInt(vcpu.cpu)];
  return { kind: 'internal-error', suberror: KVM_INTERNAL_ERROR.UNEXPECTED_EXIT_REASON, data };
}

function cpuidExit(vcpu: Vcpu, _: Entry, exit: GuestExit): VcpuExit {
  const { d } = vcpu.regs;
  const results = guestCpuid(vcpu.cpuid, d[2 * RAX]!, d[2 * RCX]!);
  for (const [i, register] of [RAX, RBX, RCX, RDX].entries()) vcpu.regs.q[register] = BigInt(results[i]!);
  advance(vcpu, exit);
  return HANDLED;
}

function hltExit(vcpu: Vcpu, _: Entry, exit: GuestExit): VcpuExit {
  advance(vcpu, exit);
  return { kind: 'halt' };
}

function vmcallExit(vcpu: Vcpu, _: Entry, exit: GuestExit): VcpuExit {
  const { q } = vcpu.regs;
  const returns = (value: bigint): void => {
    q[RAX] = value;
    advance(vcpu, exit);
  };
  const args = [q[RBX]!, q[RCX]!, q[RDX]!, q[RSI]!];
  const outcome = hypercall(vcpu.vm, Number(q[RAX]! & LOW_32), args, returns);
  if ('kind' in outcome) return outcome;
  returns(outcome.returns);
  return HANDLED;
}

function ioExit(vcpu: Vcpu, _: Entry, exit: GuestExit): VcpuExit {
  const { qualification } = exit;
  if ((qualification & IO.STRING) !== 0n) {
    return { kind: 'internal-error', suberror: KVM_INTERNAL_ERROR.EMULATION, data: [] };
  }
  const size = Number(qualification & IO.SIZE) + 1;
  const isWrite = (qualification & IO.IN) === 0n;
  const register = new Uint8Array(vcpu.regs.q.buffer, vcpu.regs.q.byteOffset + 8 * RAX, 8);
  return {
    kind: 'io',
    isWrite,
    port: Number((qualification >> IO.PORT_SHIFT) & IO.PORT),
    bytes: isWrite ? register.slice(0, size) : new Uint8Array(size),
    complete: (answer) => {
      if (!isWrite) register.set(answer);
      // A write to a 32-bit register clears the upper half.
      if (!isWrite && size === 4) register.fill(0, 4);
      advance(vcpu, exit);
    },
  };
}

function rdmsrExit(vcpu: Vcpu, context: Entry, exit: GuestExit): VcpuExit {
  const { q, d } = vcpu.regs;
  const index = d[2 * RCX]!;
  const value = vcpu.msrs.get(index) ?? RESET_MSRS.get(index);
  if (value === undefined || !vcpu.vm.msrFilter.allows(index, 'read')) return protectionFault(context);
  q[RAX] = value & LOW_32;
  q[RDX] = value >> 32n;
  advance(vcpu, exit);
  return HANDLED;
}

function wrmsrExit(vcpu: Vcpu, context: Entry, exit: GuestExit): VcpuExit {
  const { q, d } = vcpu.regs;
  const index = d[2 * RCX]!;
  if (!RESET_MSRS.has(index) || !vcpu.vm.msrFilter.allows(index, 'write')) return protectionFault(context);
  vcpu.msrs.set(index, (q[RAX]! & LOW_32) | ((q[RDX]! & LOW_32) << 32n));
  advance(vcpu, exit);
  return HANDLED;
}

function violation(vcpu: Vcpu, context: Entry, exit: GuestExit): VcpuExit {
  const { gpa, qualification, access } = exit;
  const kind = (qualification & FETCH) !== 0n ? 'execute' : (qualification & WRITE) !== 0n ? 'write' : 'read';
  const complete = (bytes: Uint8Array): void => {
    if (kind === 'read') context.emulated = bytes;
    advance(vcpu, exit);
  };
  const emulate = access === undefined ? null : { ...access, complete };
  return { kind: 'page-fault', gpa, isPrivate: null, access: kind, emulate };
}

function protectionFault(context: Entry): VcpuExit {
  context.inject = { vector: VECTOR_GP, errorCode: 0 };
  return HANDLED;
}

function advance(vcpu: Vcpu, { instructionLengthBytes }: GuestExit): void {
  vcpu.rip += BigInt(instructionLengthBytes);
}
