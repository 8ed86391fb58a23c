/** Exceptions of the simulated CPU. They belong to the machine: thrown by an instruction, caught by its executor. */

/** Architectural vector numbers. @public */
export const VECTOR_UD = 6;
export const VECTOR_GP = 13;
export const VECTOR_PF = 14;
export const VECTOR_MC = 18;
export const VECTOR_VE = 20;
export const VECTOR_VC = 29;

const MNEMONICS: Readonly<Record<number, string>> = {
  [VECTOR_UD]: '#UD',
  [VECTOR_GP]: '#GP',
  [VECTOR_PF]: '#PF',
  [VECTOR_MC]: '#MC',
  [VECTOR_VE]: '#VE',
  [VECTOR_VC]: '#VC',
};

/** A CPU exception raised by one instruction on one logical processor. @public */
export class CpuException extends Error {
  readonly vector: number;
  constructor(vector: number, why: string) {
    super(`${MNEMONICS[vector] ?? `vector ${vector}`}: ${why}`);
    this.name = 'CpuException';
    this.vector = vector;
  }
}

/** A machine check: a poisoned line was consumed. @public */
export class MachineCheck extends CpuException {
  /** Physical address of the poisoned line. */
  readonly address: number;
  constructor(address: number, why: string) {
    super(VECTOR_MC, why);
    this.name = 'MachineCheck';
    this.address = address;
  }
}
