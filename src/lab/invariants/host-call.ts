/** One SEAMCALL or one VM exit of a guest as its observer sees it: registers before and after, and host memory. */

const LEVEL_MASK = 0b111n;
const ADDRESS_MASK = 0xf_ffff_ffff_f000n;

/** @public */
export interface HostCall {
  /** Index of the LP. */
  readonly lp: number;
  readonly leaf: number;
  readonly version: number;
  readonly in: BigUint64Array;
  readonly out: BigUint64Array;
  readonly status: bigint;
  /** VP.ENTER only: the LP is in the guest now, and its exit comes later. */
  readonly staysInTd: boolean;
  /** Reads memory as the host does. */
  readonly hostMemory: (address: number, length: number) => Uint8Array;
}

/** Address of the 4 KiB page in input register `register`: bits 51:12. @public */
export function pageIn(call: HostCall, register: number): number {
  return Number(call.in[register]! & ADDRESS_MASK);
}

/** The same in an output register. @public */
export function pageOut(call: HostCall, register: number): number {
  return Number(call.out[register]! & ADDRESS_MASK);
}

/** A guest address with its level, as RCX holds it. @public */
export interface GpaKey {
  readonly gpa: number;
  readonly level: number;
  /** Both in one number, as operands have it. */
  readonly key: number;
}

/** The guest address and level in `value`. @public */
export function gpaKey(value: bigint): GpaKey {
  const gpa = Number(value & ADDRESS_MASK);
  const level = Number(value & LEVEL_MASK);
  return { gpa, level, key: gpa + level };
}
