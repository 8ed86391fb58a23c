/**
 * The register file spoken at the SEAMCALL and TDCALL walls: sixteen 64-bit registers indexed by the x86
 * register number, which is also the ABI's operand number (facts: operand ids).
 *
 * Two views share one buffer: `q` for whole values (bigint) and `d` for 32-bit halves (number; register i has
 * its low half at `2*i` and its high half at `2*i+1`). Hot paths use `d`, because every bigint is an allocation.
 * @public
 */
export interface Registers {
  readonly q: BigUint64Array;
  readonly d: Uint32Array;
}

/** x86 register numbers. @public */
export const RAX = 0;
export const RCX = 1;
export const RDX = 2;
export const RBX = 3;
export const RSP = 4;
export const RBP = 5;
export const RSI = 6;
export const RDI = 7;
export const R8 = 8;
export const R9 = 9;
export const R10 = 10;
export const R11 = 11;
export const R12 = 12;
export const R13 = 13;
export const R14 = 14;
export const R15 = 15;

/** Register names by number, lower case as in traces. @public */
export const REGISTER_NAMES = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;

/** A register's name, as traces, vectors and options write it. @public */
export type RegisterName = (typeof REGISTER_NAMES)[number];

/** All registers zero. @public */
export function createRegisters(): Registers {
  const q = new BigUint64Array(16);
  return { q, d: new Uint32Array(q.buffer) };
}

/** Register `i` as a number; exact only below 2^53, so for addresses and sizes that were range-checked. @public */
export function regNumber(regs: Registers, i: number): number {
  return regs.d[2 * i + 1]! * 0x1_0000_0000 + regs.d[2 * i]!;
}

/** Stores a non-negative integer below 2^53 in register `i`. @public */
export function setRegNumber(regs: Registers, i: number, value: number): void {
  regs.d[2 * i] = value;
  regs.d[2 * i + 1] = value / 0x1_0000_0000;
}
