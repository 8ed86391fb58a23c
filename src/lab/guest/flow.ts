/**
 * Guests written in TypeScript: a script is a generator that yields what the vCPU does next and gets the answer back.
 * `GuestCpu` has the verbs; an exception that the module injects is thrown into the script as `GuestException`.
 */
import { KVM_HC_MAP_GPA_RANGE, KVM_MAP_GPA_RANGE } from '../../abi/kvm/exits.ts';
import { TDG } from '../../abi/leaves.ts';
import { RAX, RCX, RDX, type RegisterName } from '../../abi/registers.ts';
import { EXIT } from '../../abi/vm-exit.ts';

/** What one step of a script does. @public */
export type GuestAction =
  | {
      readonly kind: 'instruction';
      /** Basic exit reason the instruction exits with where it is intercepted. */
      readonly reason: number;
      readonly lengthBytes: number;
      readonly qualification?: bigint;
      /** Registers it takes; the others keep what they hold. */
      readonly registers?: Partial<Record<RegisterName, bigint>>;
    }
  | {
      /** An instruction of one technology, which processors without it answer with #UD. */
      readonly kind: 'technology';
      readonly name: string;
      readonly lengthBytes: number;
      readonly registers?: Partial<Record<RegisterName, bigint>>;
    }
  | {
      readonly kind: 'read';
      readonly gpa: number;
      readonly lengthBytes: number;
      /** The processor reads it itself to deliver an event. */
      readonly delivery?: boolean;
    }
  | { readonly kind: 'write'; readonly gpa: number; readonly bytes: Uint8Array };

/** Answer to an action: all registers after an instruction of whatever kind, the bytes of a read, nothing for a write. @public */
export type GuestAnswer = BigUint64Array | Uint8Array;

/** A part of a script that comes to a result of type `T`. @public */
export type GuestFlow<T = void> = Generator<GuestAction, T, GuestAnswer>;

/** A whole script: the life of one vCPU. @public */
export type GuestScript = (cpu: GuestCpu) => GuestFlow;

/** An exception delivered to the guest, at the instruction that the script was executing. @public */
export class GuestException extends Error {
  readonly vector: number;
  readonly errorCode: number | undefined;

  constructor(vector: number, errorCode: number | undefined) {
    super(`vector ${vector}${errorCode === undefined ? '' : `, error code 0x${errorCode.toString(16)}`}`);
    this.name = 'GuestException';
    this.vector = vector;
    this.errorCode = errorCode;
  }
}

/** Lengths of the instructions in bytes, as a compiler would emit them. */
const LENGTH = { tdcall: 4, cpuid: 2, msr: 2, io: 1, hlt: 1, vmcall: 3 } as const;
const LOW_32 = 0xffff_ffffn;
/** Exit qualification bit of IN. */
const IO_IN = 1n << 3n;

/** The vCPU as a script sees it. @public */
export class GuestCpu {
  /** Index of the vCPU in its TD. */
  readonly index: number;

  constructor(index: number) {
    this.index = index;
  }

  /** TDCALL. Returns all registers; RAX holds the status. */
  *tdcall(
    leaf: number,
    registers: Partial<Record<RegisterName, bigint>> = {},
    version = 0,
  ): GuestFlow<BigUint64Array> {
    const rax = BigInt(leaf) | (BigInt(version) << 16n);
    return yield* instruction(EXIT.TDCALL, LENGTH.tdcall, { ...registers, rax });
  }

  /** TDG.VP.VMCALL of a GHCI function (R11) with R12 to R15; returns all registers, R10 holds the host's answer. */
  *vmcall(func: bigint, r12 = 0n, r13 = 0n, r14 = 0n, r15 = 0n): GuestFlow<BigUint64Array> {
    // R10 to R15 go to the host and come back.
    return yield* this.tdcall(TDG.vpVmcall, { rcx: 0xfc00n, r10: 0n, r11: func, r12, r13, r14, r15 });
  }

  /** Accepts the pages of `[gpa, gpa + pages * 4 KiB)` one by one; returns the first status that is no success. */
  *accept(gpa: number, pages = 1): GuestFlow<bigint> {
    for (let i = 0; i < pages; i++) {
      const out = yield* this.tdcall(TDG.memPageAccept, { rcx: BigInt(gpa + i * 4096) });
      if (out[RAX]! >> 63n === 1n) return out[RAX]!;
    }
    return 0n;
  }

  *read(gpa: number, lengthBytes: number): GuestFlow<Uint8Array> {
    return (yield { kind: 'read', gpa, lengthBytes }) as Uint8Array;
  }

  *write(gpa: number, bytes: Uint8Array): GuestFlow {
    yield { kind: 'write', gpa, bytes };
  }

  /** CPUID; returns EAX, EBX, ECX, EDX. */
  *cpuid(leaf: number, subleaf = 0): GuestFlow<readonly [number, number, number, number]> {
    const out = yield* instruction(EXIT.CPUID, LENGTH.cpuid, {
      rax: BigInt(leaf),
      rcx: BigInt(subleaf),
    });
    const low = (i: number): number => Number(out[i]! & LOW_32);
    return [low(RAX), low(3), low(RCX), low(RDX)];
  }

  *rdmsr(address: number): GuestFlow<bigint> {
    const out = yield* instruction(EXIT.RDMSR, LENGTH.msr, { rcx: BigInt(address) });
    return (out[RDX]! << 32n) | (out[RAX]! & LOW_32);
  }

  *wrmsr(address: number, value: bigint): GuestFlow {
    const registers = { rcx: BigInt(address), rax: value & LOW_32, rdx: value >> 32n };
    yield* instruction(EXIT.WRMSR, LENGTH.msr, registers);
  }

  /** OUT of `size` bytes (1, 2, 4) to a port in DX. */
  *out(port: number, value: number, size: 1 | 2 | 4 = 1): GuestFlow {
    const registers = { rax: BigInt(value), rdx: BigInt(port) };
    yield* instruction(EXIT.IO, LENGTH.io, registers, BigInt(size - 1) | (BigInt(port) << 16n));
  }

  /** IN of `size` bytes (1, 2, 4) from a port in DX. */
  *in(port: number, size: 1 | 2 | 4 = 1): GuestFlow<number> {
    const qualification = BigInt(size - 1) | IO_IN | (BigInt(port) << 16n);
    const out = yield* instruction(EXIT.IO, LENGTH.io, { rdx: BigInt(port) }, qualification);
    return Number(out[RAX]! & ((1n << BigInt(8 * size)) - 1n));
  }

  /** VMCALL of a hypercall in KVM's convention: number in RAX, up to four operands; returns RAX. */
  *hypercall(nr: number, rbx = 0n, rcx = 0n, rdx = 0n, rsi = 0n): GuestFlow<bigint> {
    const registers = { rax: BigInt(nr), rbx, rcx, rdx, rsi };
    const out = yield* instruction(EXIT.VMCALL, LENGTH.vmcall, registers);
    return out[RAX]!;
  }

  /** Asks the host by hypercall to make pages private or shared; 0 is success. */
  *mapGpaRange(gpa: number, pages: number, isPrivate: boolean): GuestFlow<bigint> {
    const attributes = isPrivate ? KVM_MAP_GPA_RANGE.ENC_STAT : 0n;
    return yield* this.hypercall(KVM_HC_MAP_GPA_RANGE, BigInt(gpa), BigInt(pages), attributes);
  }

  /** An instruction of one technology, such as 'pvalidate' or 'hvc'; returns all registers. */
  *technology(
    name: string,
    lengthBytes: number,
    registers: Partial<Record<RegisterName, bigint>> = {},
  ): GuestFlow<BigUint64Array> {
    return (yield { kind: 'technology', name, lengthBytes, registers }) as BigUint64Array;
  }

  /** What the processor does to deliver an event: it reads the descriptor at `gpa`, in the IDT. */
  *deliverThrough(gpa: number): GuestFlow {
    yield { kind: 'read', gpa, lengthBytes: 16, delivery: true };
  }

  /** A triple fault: the processor shuts down. */
  *tripleFault(): GuestFlow {
    yield* instruction(EXIT.TRIPLE_FAULT, 0, {});
  }

  *hlt(): GuestFlow {
    yield* instruction(EXIT.HLT, LENGTH.hlt, {});
  }

  /** Lets an external interrupt of the host arrive here. */
  *interrupt(): GuestFlow {
    yield* instruction(EXIT.EXTERNAL_INTERRUPT, 0, {});
  }
}

function* instruction(
  reason: number,
  lengthBytes: number,
  registers: Partial<Record<RegisterName, bigint>>,
  qualification = 0n,
): GuestFlow<BigUint64Array> {
  return (yield { kind: 'instruction', reason, lengthBytes, registers, qualification }) as BigUint64Array;
}
