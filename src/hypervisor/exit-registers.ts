/** What of a protected guest's registers an exit shows to the host, and what the host may answer. */
import { RAX, RBX, RCX, RDX, REGISTER_NAMES } from '../abi/registers.ts';
import { EXIT } from '../abi/vm-exit.ts';

/** @internal */
export interface VisibleRegisters {
  readonly out: readonly number[];
  readonly in: readonly number[];
  /** The host may let the instruction fault. */
  readonly mayInject: boolean;
}

/** Exits that show nothing, and what a call is repeated from. @internal */
export const HIDDEN: VisibleRegisters = { out: [], in: [], mayInject: false };

const VISIBLE: ReadonlyMap<number, VisibleRegisters> = new Map([
  // x0 to x3 are registers 0 to 3.
  [EXIT.VMCALL, { out: [RAX, RCX, RDX, RBX], in: [RAX, RCX, RDX, RBX], mayInject: false }],
  [EXIT.CPUID, { out: [RAX, RCX], in: [RAX, RBX, RCX, RDX], mayInject: false }],
  [EXIT.RDMSR, { out: [RCX], in: [RAX, RDX], mayInject: true }],
  [EXIT.WRMSR, { out: [RAX, RCX, RDX], in: [], mayInject: true }],
  [EXIT.IO, { out: [RAX, RDX], in: [RAX], mayInject: false }],
]);

/** @internal */
export function visibleRegisters(reason: number): VisibleRegisters {
  return VISIBLE.get(reason) ?? HIDDEN;
}

/** What the host may answer while the hypervisor completes a call itself: whether it agrees. @internal */
export const CALL_ANSWER: VisibleRegisters = { out: [], in: [RAX], mayInject: false };

/** Registers of the file, x0 upwards. @internal */
export const ALL_REGISTERS: readonly number[] = REGISTER_NAMES.map((_, i) => i);
