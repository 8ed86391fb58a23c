/** TDVMCALLs: handled in the kernel, or passed to user space as exits (Linux host rules 2.5). */
import { KVM_RUN_EXIT, KVM_SYSTEM_EVENT } from '../../../abi/kvm/exits.ts';
import { R10, R11, R12, R13, R14, R15, RAX, RBP, RSP } from '../../../abi/registers.ts';
import { EXIT } from '../../../abi/vm-exit.ts';
import { guestCpuid } from '../../guest-cpuid.ts';
import { hypercall } from '../../hypercall.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import { readMsr, writeMsr } from './emulated-msrs.ts';
import { isPrivateGpa, withoutSharedBit } from './guest-address.ts';
import { mapGpa } from './map-gpa.ts';
import { hasPostedInterrupt } from './posted-interrupts.ts';
import { TDVMCALL, TDVMCALL_STATUS } from './tdvmcall-abi.ts';
import type { TdxVcpu } from './tdx-vcpu.ts';

type Handler = (vcpu: TdxVcpu) => VcpuExit;

const HANDLED: VcpuExit = { kind: 'handled' };
const { INVALID_OPERAND, SUBFUNC_UNSUPPORTED, SUCCESS } = TDVMCALL_STATUS;
/** Vectors below are exceptions. */
const FIRST_INTERRUPT = 32n;
const LAST_VECTOR = 255n;
const PORT_SIZES: ReadonlySet<bigint> = new Set([1n, 2n, 4n]);
const MMIO_SIZES: ReadonlySet<bigint> = new Set([1n, 2n, 4n, 8n]);
const LOW_32 = 0xffff_ffffn;

const HANDLERS: ReadonlyMap<number, Handler> = new Map([
  [EXIT.CPUID, cpuid],
  [EXIT.HLT, halt],
  [EXIT.IO, portAccess],
  [EXIT.RDMSR, rdmsr],
  [EXIT.WRMSR, wrmsr],
  [EXIT.EPT_VIOLATION, mmio],
  [TDVMCALL.MAP_GPA, mapGpa],
  [TDVMCALL.REPORT_FATAL_ERROR, reportFatalError],
  [TDVMCALL.GET_TD_VM_CALL_INFO, vmCallInfo],
  [TDVMCALL.GET_QUOTE, getQuote],
  [TDVMCALL.SETUP_EVENT_NOTIFY_INTERRUPT, setupEventNotify],
]);

/** A call of the GHCI. @internal */
export function tdvmcall(vcpu: TdxVcpu, func: number): VcpuExit {
  const handler = HANDLERS.get(func);
  return handler === undefined ? fail(vcpu, SUBFUNC_UNSUPPORTED) : handler(vcpu);
}

/** A hypercall of KVM's own: R10 is not 0 but its number. @internal */
export function guestHypercall(vcpu: TdxVcpu): VcpuExit {
  const { args, td } = vcpu;
  const operands = [args[R11]!, args[R12]!, args[R13]!, args[R14]!];
  const exit = hypercall(td.vm, Number(args[R10]!), operands, (returns) => {
    args[R10] = returns;
  });
  return 'returns' in exit ? fail(vcpu, BigInt.asUintN(64, exit.returns)) : exit;
}

function fail({ args }: TdxVcpu, status: bigint): VcpuExit {
  args[R10] = status;
  return HANDLED;
}

function cpuid({ args, vcpu }: TdxVcpu): VcpuExit {
  const [eax, ebx, ecx, edx] = guestCpuid(
    vcpu.cpuid,
    Number(args[R12]! & LOW_32),
    Number(args[R13]! & LOW_32),
  );
  args[R12] = BigInt(eax);
  args[R13] = BigInt(ebx);
  args[R14] = BigInt(ecx);
  args[R15] = BigInt(edx);
  return HANDLED;
}

/** R12: interrupts are blocked. */
function halt(vcpu: TdxVcpu): VcpuExit {
  vcpu.haltedWithoutInterrupts = vcpu.args[R12] !== 0n;
  const wakes = !vcpu.haltedWithoutInterrupts && hasPostedInterrupt(vcpu, vcpu.vcpu.lp);
  return wakes ? HANDLED : { kind: 'halt' };
}

function portAccess(vcpu: TdxVcpu): VcpuExit {
  const { args } = vcpu;
  const size = args[R12]!;
  const direction = args[R13]!;
  if (direction > 1n || !PORT_SIZES.has(size)) return fail(vcpu, INVALID_OPERAND);
  const isWrite = direction === 1n;
  return {
    kind: 'io',
    isWrite,
    port: Number(args[R14]! & 0xffffn),
    bytes: toBytes(isWrite ? args[R15]! : 0n, Number(size)),
    complete: (answer) => {
      if (!isWrite) args[R11] = fromBytes(answer);
    },
  };
}

/** Shared addresses only: the host has no business with private ones. */
function mmio(vcpu: TdxVcpu): VcpuExit {
  const { args, td } = vcpu;
  const size = args[R12]!;
  const direction = args[R13]!;
  const gpa = args[R14]!;
  if (!MMIO_SIZES.has(size) || direction > 1n) return fail(vcpu, INVALID_OPERAND);
  if (isPrivateGpa(td, gpa) || isPrivateGpa(td, gpa + size - 1n)) return fail(vcpu, INVALID_OPERAND);
  const isWrite = direction === 1n;
  return {
    kind: 'mmio',
    gpa: withoutSharedBit(td, gpa),
    isWrite,
    bytes: toBytes(isWrite ? args[R15]! : 0n, Number(size)),
    complete: (answer) => {
      if (!isWrite) args[R11] = fromBytes(answer);
    },
  };
}

function rdmsr(vcpu: TdxVcpu): VcpuExit {
  const value = readMsr(vcpu, Number(vcpu.args[R12]! & LOW_32));
  if (value === null) return fail(vcpu, INVALID_OPERAND);
  vcpu.args[R11] = value;
  return HANDLED;
}

function wrmsr(vcpu: TdxVcpu): VcpuExit {
  const { args } = vcpu;
  const done = writeMsr(vcpu, Number(args[R12]! & LOW_32), args[R13]!);
  return done ? HANDLED : fail(vcpu, INVALID_OPERAND);
}

/** All registers go to user space, but RSP and RBP, which the host does not get. */
function reportFatalError({ args }: TdxVcpu): VcpuExit {
  const data = Array.from(args);
  data[RAX] = BigInt(EXIT.TDCALL);
  data[RSP] = 0n;
  data[RBP] = 0n;
  return { kind: 'system-event', type: KVM_SYSTEM_EVENT.TDX_FATAL, data };
}

/** Leaf 0 asks what the GHCI's base has, which is everything; leaf 1 is for user space. */
function vmCallInfo(vcpu: TdxVcpu): VcpuExit {
  const { args } = vcpu;
  const leaf = args[R12]!;
  if (leaf > 1n) return fail(vcpu, INVALID_OPERAND);
  if (leaf === 0n) {
    args.fill(0n, R11, R15);
    return fail(vcpu, SUCCESS);
  }
  return {
    kind: 'tdx',
    nr: TDVMCALL.GET_TD_VM_CALL_INFO,
    words: [SUCCESS, leaf, 0n, 0n, 0n, 0n],
    complete: (answer) => {
      const { ret, r11, r12, r13, r14 } = KVM_RUN_EXIT.TDX_GET_TDVMCALL_INFO.decode(answer);
      args.set([ret, r11, r12, r13, r14], R10);
    },
  };
}

/** The buffer must be shared, or the host could not write the quote. */
function getQuote(vcpu: TdxVcpu): VcpuExit {
  const { args, td } = vcpu;
  const gpa = args[R12]!;
  if (isPrivateGpa(td, gpa)) return fail(vcpu, INVALID_OPERAND);
  const words = [SUBFUNC_UNSUPPORTED, BigInt(withoutSharedBit(td, gpa)), args[R13]!];
  return toUserSpace(vcpu, TDVMCALL.GET_QUOTE, words);
}

function setupEventNotify(vcpu: TdxVcpu): VcpuExit {
  const vector = vcpu.args[R12]!;
  if (vector < FIRST_INTERRUPT || vector > LAST_VECTOR) return fail(vcpu, INVALID_OPERAND);
  return toUserSpace(vcpu, TDVMCALL.SETUP_EVENT_NOTIFY_INTERRUPT, [SUBFUNC_UNSUPPORTED, vector]);
}

function toUserSpace({ args }: TdxVcpu, nr: number, words: readonly bigint[]): VcpuExit {
  return {
    kind: 'tdx',
    nr,
    words,
    complete: (answer) => {
      args[R10] = KVM_RUN_EXIT.TDX_UNKNOWN.decode(answer).ret;
    },
  };
}

function toBytes(value: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes.slice(0, length);
}

function fromBytes(bytes: Uint8Array): bigint {
  const whole = new Uint8Array(8);
  whole.set(bytes.subarray(0, 8));
  return new DataView(whole.buffer).getBigUint64(0, true);
}
