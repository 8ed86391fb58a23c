/** What processors share that play scripts: where the parts of an access lie, what an access tells at an exit. */
import { offsetIn, PAGE_4K } from '../../abi/address.ts';
import { REGISTER_NAMES, type RegisterName } from '../../abi/registers.ts';
import type { GuestAction } from './flow.ts';

/** Length of a memory access' instruction in bytes. @internal */
export const ACCESS_LENGTH = 3;
/** Exit qualification bits of an EPT violation: read, write, linear address valid and final. @internal */
export const QUALIFICATION = { read: 1n << 0n, write: 1n << 1n, linear: 0b11n << 7n } as const;
/** The reset vector is 16-bit code, so a script begins elsewhere. @internal */
export const FIRST_INSTRUCTION = 0x40_1000n;

const REGISTER_NUMBERS = Object.fromEntries(REGISTER_NAMES.map((name, i) => [name, i])) as Readonly<
  Record<RegisterName, number>
>;

/** Loads the registers that an action names. @internal */
export function loadRegisters(
  q: BigUint64Array,
  registers: Partial<Record<RegisterName, bigint>> | undefined,
): void {
  for (const name in registers) q[REGISTER_NUMBERS[name as RegisterName]] = registers[name as RegisterName]!;
}

/** Length of the instruction that does what the action says, in bytes. @internal */
export function lengthOf(action: GuestAction): number {
  return action.kind === 'read' || action.kind === 'write' ? ACCESS_LENGTH : action.lengthBytes;
}

/** The pieces of [gpa, gpa + length) by page: `done` bytes lie before each. @internal */
export function* pageParts(
  gpa: number,
  length: number,
): Generator<{ readonly at: number; readonly size: number; readonly done: number }> {
  for (let done = 0; done < length; ) {
    const at = gpa + done;
    const size = Math.min(PAGE_4K - offsetIn(at, PAGE_4K), length - done);
    yield { at, size, done };
    done += size;
  }
}
