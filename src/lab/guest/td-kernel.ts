/** Runs an ordinary script as a TD: memory accepted before its first use, shared aliases, a #VE handler. */
import { PAGE_4K, pfnOf } from '../../abi/address.ts';
import { KVM_HC_MAP_GPA_RANGE, KVM_MAP_GPA_RANGE } from '../../abi/kvm/exits.ts';
import { TDG } from '../../abi/leaves.ts';
import { R10, R11, R12, R13, R14, R15, RAX, RBX, RCX, RDX } from '../../abi/registers.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import { VECTOR_VE } from '../../machine/exceptions.ts';
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

type Instruction = Extract<GuestAction, { readonly kind: 'instruction' }>;

/** Functions of TDG.VP.VMCALL; others are exit reasons. */
const MAP_GPA = 0x1_0001n;
const RETRY = 1n;
const IO_IN = 1n << 3n;
const LOW_32 = 0xffff_ffffn;

/** Which frames of a TD are shared and which are accepted; all of its vCPUs go by the same. @public */
export class TdPages {
  readonly sharedBit: number;
  readonly #shared = new Set<number>();
  readonly #accepted = new Set<number>();

  /** `sharedBit` is 47 with guest physical addresses of 48 bits, else 51. */
  constructor(sharedBit = 47) {
    this.sharedBit = sharedBit;
  }

  isShared(gpa: number): boolean {
    return this.#shared.has(pfnOf(gpa));
  }

  isAccepted(gpa: number): boolean {
    return this.#accepted.has(pfnOf(gpa));
  }

  accepted(gpa: number): void {
    this.#accepted.add(pfnOf(gpa));
  }

  /** What the host made of pages: private ones are to be accepted again. */
  converted(gpa: number, pages: number, isPrivate: boolean): void {
    for (let i = 0; i < pages; i++) {
      this.#accepted.delete(pfnOf(gpa) + i);
      if (isPrivate) this.#shared.delete(pfnOf(gpa) + i);
      else this.#shared.add(pfnOf(gpa) + i);
    }
  }
}

/** `script` as the program of a TD. @public */
export function asTdGuest(script: GuestScript, pages: TdPages = new TdPages()): GuestScript {
  return underKernel(script, (cpu) => new TdKernel(cpu, pages));
}

class TdKernel implements GuestKernel {
  readonly #cpu: GuestCpu;
  readonly #pages: TdPages;

  constructor(cpu: GuestCpu, pages: TdPages) {
    this.#cpu = cpu;
    this.#pages = pages;
  }

  *perform(action: GuestAction): GuestFlow<GuestAnswer> {
    switch (action.kind) {
      case 'read': {
        const bytes = new Uint8Array(action.lengthBytes);
        for (const { at, size, done } of pageParts(action.gpa, action.lengthBytes)) {
          bytes.set(yield* this.#cpu.read(yield* this.#usable(at), size), done);
        }
        return bytes;
      }
      case 'write':
        for (const { at, size, done } of pageParts(action.gpa, action.bytes.length)) {
          yield* this.#cpu.write(yield* this.#usable(at), action.bytes.subarray(done, done + size));
        }
        return action.bytes;
      case 'instruction':
        return yield* this.#instruction(action);
      case 'technology':
        return yield action;
    }
  }

  /** The address to use: a shared page's alias, or that of a private page that is accepted by now. */
  *#usable(gpa: number): GuestFlow<number> {
    const pages = this.#pages;
    if (pages.isShared(gpa)) return gpa + 2 ** pages.sharedBit;
    if (!pages.isAccepted(gpa)) {
      // A page that was added before the launch says that it is accepted already.
      yield* this.#cpu.accept(gpa - (gpa % PAGE_4K));
      pages.accepted(gpa);
    }
    return gpa;
  }

  *#instruction(action: Instruction): GuestFlow<GuestAnswer> {
    const { rax = 0n, rbx = 0n, rcx = 0n, rdx = 0n } = action.registers ?? {};
    if (action.reason === EXIT.VMCALL && rax === BigInt(KVM_HC_MAP_GPA_RANGE)) {
      return yield* this.#mapGpa(Number(rbx), Number(rcx), (rdx & KVM_MAP_GPA_RANGE.ENC_STAT) !== 0n);
    }
    try {
      return yield action;
    } catch (error) {
      if (!(error instanceof GuestException) || error.vector !== VECTOR_VE) throw error;
      // The next exception would be a double fault until this one's information has been read.
      yield* this.#cpu.tdcall(TDG.vpVeinfoGet);
      return yield* this.#emulate(action);
    }
  }

  /** Asks the host for what made the instruction fault. */
  *#emulate({ reason, qualification = 0n, registers = {} }: Instruction): GuestFlow<BigUint64Array> {
    const { rax = 0n, rcx = 0n, rdx = 0n } = registers;
    const cpu = this.#cpu;
    const answer = new BigUint64Array(16);
    switch (reason) {
      case EXIT.CPUID: {
        const out = yield* cpu.vmcall(BigInt(reason), rax, rcx);
        answer[RAX] = out[R12]!;
        answer[RBX] = out[R13]!;
        answer[RCX] = out[R14]!;
        answer[RDX] = out[R15]!;
        return answer;
      }
      case EXIT.IO: {
        const size = (qualification & 7n) + 1n;
        const direction = (qualification & IO_IN) === 0n ? 1n : 0n;
        const out = yield* cpu.vmcall(BigInt(reason), size, direction, qualification >> 16n, rax);
        answer[RAX] = out[R11]!;
        return answer;
      }
      case EXIT.RDMSR: {
        const out = yield* cpu.vmcall(BigInt(reason), rcx);
        answer[RAX] = out[R11]! & LOW_32;
        answer[RDX] = out[R11]! >> 32n;
        return answer;
      }
      case EXIT.WRMSR:
        return yield* cpu.vmcall(BigInt(reason), rcx, (rdx << 32n) | (rax & LOW_32));
      case EXIT.HLT:
        return yield* cpu.vmcall(BigInt(reason));
      default:
        throw new Error(`no #VE handler for exit reason ${reason}`);
    }
  }

  /** The whole range, from where the host stopped on. RAX is 0, or the host's status. */
  *#mapGpa(gpa: number, pages: number, isPrivate: boolean): GuestFlow<BigUint64Array> {
    const alias = isPrivate ? 0n : 2n ** BigInt(this.#pages.sharedBit);
    const end = BigInt(gpa + pages * PAGE_4K) | alias;
    let start = BigInt(gpa) | alias;
    const answer = new BigUint64Array(16);
    for (;;) {
      const out = yield* this.#cpu.vmcall(MAP_GPA, start, end - start);
      answer[RAX] = out[R10]!;
      if (answer[RAX] !== RETRY) break;
      start = out[R11]!;
    }
    if (answer[RAX] === 0n) this.#pages.converted(gpa, pages, isPrivate);
    return answer;
  }
}
