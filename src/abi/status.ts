/**
 * The status word a SEAMCALL or TDCALL leaves in RAX (module facts 1): bit 63 error, 62 non-recoverable,
 * 61 fatal, 60 host recoverability hint, 47:40 class, 39:32 detail L1, 31:0 detail L2 (operand id or info).
 * Also the software codes that the kernel's SEAMCALL wrapper makes of CPU events (Linux host rules 0).
 */
import { OPERAND, type OperandName } from './operands.ts';
import { STATUS, STATUS_CLASSES, type StatusName } from './status-codes.ts';

/** Mask of the part of a status that names it; the rest is detail. @public */
export const STATUS_NAME_MASK = 0xffff_ffff_0000_0000n;

/** Statuses made by software, never by a module: class byte 0xFF. @public */
export const SW_STATUS = {
  TDX_SW_ERROR: 0x8000_ff00_0000_0000n,
  TDX_SEAMCALL_UD: 0x8000_ff00_0000_0006n,
  TDX_SEAMCALL_GP: 0x8000_ff00_0000_000dn,
  TDX_SEAMCALL_VMFAILINVALID: 0x8000_ff00_ffff_0000n,
} as const;

/** A status with an operand id or other 32-bit detail. @public */
export function withOperand(status: bigint, operand: number): bigint {
  return status | BigInt(operand);
}

/** A status whose 32-bit detail holds up to four info bytes, byte 0 lowest (SYS.CONFIG reports this way). @public */
export function withInfo(status: bigint, byte0: number, byte1 = 0, byte2 = 0, byte3 = 0): bigint {
  return status | BigInt(byte0 | (byte1 << 8) | (byte2 << 16)) | (BigInt(byte3) << 24n);
}

const NAMES = new Map<bigint, StatusName>(
  (Object.entries(STATUS) as [StatusName, bigint][]).map(([name, value]) => [value, name]),
);
const SW_NAMES = new Map<bigint, string>(Object.entries(SW_STATUS).map(([name, value]) => [value, name]));
const OPERAND_NAMES = new Map<number, OperandName>(
  (Object.entries(OPERAND) as [OperandName, number][]).map(([name, value]) => [value, name]),
);

/** A status taken apart. @public */
export interface DecodedStatus {
  readonly value: bigint;
  /** ABI name, or undefined when the code is not in the table. */
  readonly name: string | undefined;
  readonly error: boolean;
  readonly nonRecoverable: boolean;
  readonly fatal: boolean;
  readonly hostRecoverabilityHint: boolean;
  readonly classCode: number;
  readonly className: string | undefined;
  /** Bits 31:0. */
  readonly detail: number;
  /** Operand name when `detail` is a known operand id. */
  readonly operand: OperandName | undefined;
}

/** Takes a status apart. Never fails: unknown codes come back without a name. @public */
export function decodeStatus(value: bigint): DecodedStatus {
  const software = ((value >> 40n) & 0xffn) === 0xffn;
  const detail = Number(value & 0xffff_ffffn);
  return {
    value,
    name: software ? SW_NAMES.get(value) : NAMES.get(value & STATUS_NAME_MASK),
    error: value >> 63n === 1n,
    nonRecoverable: ((value >> 62n) & 1n) === 1n,
    fatal: ((value >> 61n) & 1n) === 1n,
    hostRecoverabilityHint: ((value >> 60n) & 1n) === 1n,
    classCode: Number((value >> 40n) & 0xffn),
    className: software ? 'SOFTWARE' : STATUS_CLASSES[Number((value >> 40n) & 0xffn)],
    detail,
    operand: software ? undefined : OPERAND_NAMES.get(detail),
  };
}

/** Statuses whose detail is an operand id rather than a count, a state or info bytes. */
const OPERAND_CLASSES: ReadonlySet<number> = new Set([1, 2, 3, 0xb]);

/** `TDX_OPERAND_INVALID(RCX)` and the like, for traces and messages. @public */
export function formatStatus(value: bigint): string {
  const s = decodeStatus(value);
  const name = s.name ?? `0x${value.toString(16)}`;
  if (s.className === 'SOFTWARE' || s.name === undefined) return name;
  // Detail 0 is RAX only where an operand is invalid; other statuses leave it zero for want of an operand.
  const named = s.detail !== 0 || s.name === 'TDX_OPERAND_INVALID';
  if (named && OPERAND_CLASSES.has(s.classCode) && s.operand !== undefined) return `${name}(${s.operand})`;
  return s.detail === 0 ? name : `${name}(0x${s.detail.toString(16)})`;
}
