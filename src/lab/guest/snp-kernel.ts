/** Runs an ordinary script as an SNP guest: page tables with C-bits, validation on demand, a #VC handler. */
import { pfnOf } from '../../abi/address.ts';
import type { GHCB } from '../../abi/ghcb.ts';
import { GHCB_EXIT, IOIO } from '../../abi/ghcb.ts';
import { KVM_HC_MAP_GPA_RANGE, KVM_MAP_GPA_RANGE } from '../../abi/kvm/exits.ts';
import { RAX, RBX, RCX, RDX } from '../../abi/registers.ts';
import type { ValuesOf } from '../../abi/struct.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import { VECTOR_VC } from '../../machine/exceptions.ts';
import { VC_NOT_VALIDATED } from '../../machine/snp/rmp-checks.ts';
import { pageParts } from './action-access.ts';
import {
  type GuestAction,
  type GuestAnswer,
  type GuestCpu,
  GuestException,
  type GuestFlow,
  type GuestScript,
} from './flow.ts';
import { type GuestKernel, underKernel } from './guest-kernel.ts';
import { SnpVerbs } from './snp-guest.ts';

/** @public */
export interface SnpKernelOptions {
  readonly cBit: number;
  /** Page for the GHCB, which becomes shared; each vCPU has its own. */
  readonly ghcb: (cpu: GuestCpu) => number;
  /** True for pages that the guest uses as shared from the start; all others are private. */
  readonly isShared?: (gpa: number) => boolean;
}

type Instruction = Extract<GuestAction, { readonly kind: 'instruction' }>;
type GhcbValues = ValuesOf<typeof GHCB>;

/** `script` as the program of an SNP guest. @public */
export function asSnpGuest(script: GuestScript, options: SnpKernelOptions): GuestScript {
  return underKernel(script, (cpu) => new SnpKernel(cpu, options));
}

class SnpKernel implements GuestKernel {
  readonly #verbs: SnpVerbs;
  readonly #isShared: (gpa: number) => boolean;
  readonly #ghcb: number;
  /** Frames whose kind the guest has changed: true for private. */
  readonly #changed = new Map<number, boolean>();

  constructor(cpu: GuestCpu, { cBit, ghcb, isShared = () => false }: SnpKernelOptions) {
    this.#ghcb = ghcb(cpu);
    this.#verbs = new SnpVerbs(cpu, { cBit, ghcb: this.#ghcb });
    this.#isShared = isShared;
  }

  *start(): GuestFlow {
    yield* this.#verbs.registerGhcb();
    this.#changed.set(pfnOf(this.#ghcb), false);
  }

  *perform(action: GuestAction): GuestFlow<GuestAnswer> {
    switch (action.kind) {
      case 'read': {
        const bytes = new Uint8Array(action.lengthBytes);
        for (const { at, size, done } of pageParts(action.gpa, action.lengthBytes)) {
          bytes.set(yield* this.#access(at, new Uint8Array(size), false), done);
        }
        return bytes;
      }
      case 'write':
        for (const { at, size, done } of pageParts(action.gpa, action.bytes.length)) {
          yield* this.#access(at, action.bytes.subarray(done, done + size), true);
        }
        return action.bytes;
      case 'instruction':
        return yield* this.#instruction(action);
      case 'technology':
        return yield action;
    }
  }

  /** One access within a page; a private page is validated when it turns out not to be. */
  *#access(gpa: number, bytes: Uint8Array, isWrite: boolean): GuestFlow<Uint8Array> {
    const address = this.#isPrivate(gpa) ? this.#verbs.private(gpa) : gpa;
    for (;;) {
      try {
        if (!isWrite) return (yield* this.#verbs.cpu.read(address, bytes.length)).slice();
        yield* this.#verbs.cpu.write(address, bytes);
        return bytes;
      } catch (error) {
        if (!(error instanceof GuestException) || error.vector !== VECTOR_VC) throw error;
        if (error.errorCode !== VC_NOT_VALIDATED) return yield* this.#mmio(gpa, bytes, isWrite);
        const { status } = yield* this.#verbs.pvalidate(gpa);
        if (status !== 0) throw error;
      }
    }
  }

  *#mmio(gpa: number, bytes: Uint8Array, isWrite: boolean): GuestFlow<Uint8Array> {
    const code = isWrite ? GHCB_EXIT.MMIO_WRITE : GHCB_EXIT.MMIO_READ;
    const fields = { sw_exit_info_1: BigInt(gpa), sw_exit_info_2: BigInt(bytes.length) };
    const { shared_buffer } = yield* this.#verbs.vmgexit(code, fields, isWrite ? bytes : new Uint8Array());
    return isWrite ? bytes : shared_buffer.slice(0, bytes.length);
  }

  *#instruction(action: Instruction): GuestFlow<GuestAnswer> {
    try {
      return yield action;
    } catch (error) {
      if (!(error instanceof GuestException) || error.vector !== VECTOR_VC) throw error;
      return yield* this.#nonAutomatic(action);
    }
  }

  /** What the #VC handler does for instructions that the host has to carry out. */
  *#nonAutomatic({ reason, qualification = 0n, registers = {} }: Instruction): GuestFlow<BigUint64Array> {
    const { rax = 0n, rcx = 0n, rdx = 0n } = registers;
    switch (reason) {
      case EXIT.CPUID:
        return answerOf(yield* this.#verbs.vmgexit(GHCB_EXIT.CPUID, { rax, rcx }));
      case EXIT.RDMSR:
        return answerOf(yield* this.#verbs.vmgexit(GHCB_EXIT.MSR, { rcx }));
      case EXIT.WRMSR:
        return answerOf(yield* this.#verbs.vmgexit(GHCB_EXIT.MSR, { rcx, rax, rdx, sw_exit_info_1: 1n }));
      case EXIT.IO:
        return answerOf(
          yield* this.#verbs.vmgexit(GHCB_EXIT.IOIO, { rax, sw_exit_info_1: ioInfo(qualification) }),
        );
      case EXIT.VMCALL:
        return yield* this.#hypercall(registers);
      default:
        throw new Error(`no #VC handler for exit reason ${reason}`);
    }
  }

  /** MAP_GPA_RANGE is done as SNP guests do it, by a page state change; other hypercalls go to the host. */
  *#hypercall(registers: NonNullable<Instruction['registers']>): GuestFlow<BigUint64Array> {
    const { rax = 0n, rbx = 0n, rcx = 0n, rdx = 0n } = registers;
    if (rax !== BigInt(KVM_HC_MAP_GPA_RANGE)) {
      return answerOf(yield* this.#verbs.vmgexit(GHCB_EXIT.VMMCALL, { rax, rbx, rcx, rdx }));
    }
    const gpa = Number(rbx);
    const pages = Number(rcx);
    const isPrivate = (rdx & KVM_MAP_GPA_RANGE.ENC_STAT) !== 0n;
    const answer = new BigUint64Array(16);
    answer[RAX] = yield* this.#verbs.convert(gpa, pages, isPrivate);
    for (let i = 0; i < pages; i++) this.#changed.set(pfnOf(gpa) + i, isPrivate);
    return answer;
  }

  #isPrivate(gpa: number): boolean {
    return this.#changed.get(pfnOf(gpa)) ?? !this.#isShared(gpa);
  }
}

/** SW_EXITINFO1 of IOIO from the qualification of an I/O exit. */
function ioInfo(qualification: bigint): bigint {
  const sizeBytes = (qualification & 7n) + 1n;
  const isIn = (qualification & 8n) !== 0n;
  return (isIn ? IOIO.in : 0n) | (sizeBytes << IOIO.sizeShift) | ((qualification >> 16n) << IOIO.portShift);
}

function answerOf({ rax, rbx, rcx, rdx }: GhcbValues): BigUint64Array {
  const answer = new BigUint64Array(16);
  answer[RAX] = rax;
  answer[RBX] = rbx;
  answer[RCX] = rcx;
  answer[RDX] = rdx;
  return answer;
}
