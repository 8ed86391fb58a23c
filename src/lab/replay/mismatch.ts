import { hex } from '../../abi/address.ts';
import { REGISTER_NAMES, type Registers, RSP } from '../../abi/registers.ts';
import type { RegisterMap } from './vector-lines.ts';

/** One difference between a recording and the model. @public */
export interface Mismatch {
  /** A register's name, `memory`, `random`, or the line type that is not supported. */
  readonly field: string;
  readonly expected: string;
  readonly actual: string;
}

/** Registers that differ; one that `expected` leaves out is 0, RSP is never compared. @public */
export function compareRegisters(expected: RegisterMap, actual: Registers): readonly Mismatch[] {
  const found: Mismatch[] = [];
  for (const [i, name] of REGISTER_NAMES.entries()) {
    const want = expected[name] ?? 0n;
    const got = actual.q[i]!;
    if (i !== RSP && want !== got) found.push({ field: name, expected: hex(want), actual: hex(got) });
  }
  return found;
}

/** Loads registers from a map; those it leaves out become 0. @public */
export function loadRegisters(regs: Registers, values: RegisterMap): void {
  for (const [i, name] of REGISTER_NAMES.entries()) regs.q[i] = values[name] ?? 0n;
}
