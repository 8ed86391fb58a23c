/** FATAL_ERROR_CONFIG, the operand of TDH.SYS.INIT version 1 that asks for diagnostics of a fatal error. */
import { CACHE_LINE } from '../abi/address.ts';
import { isSharedHpa, type KeyIdLayout } from './platform.ts';

/** Bits 5:0 and 53:52 are reserved. */
const RESERVED = 0x30_0000_0000_003fn;
/** Bits 51:6: the line's physical address; all ones when no line is wanted. */
const HPA = 0xf_ffff_ffff_ffc0n;
/** Lowest interrupt vector that may be asked for. */
const MIN_VECTOR = 16n;
/** Bits 55:54: notification by interrupt; 0 none, 2 NMI and 3 SMI need no vector. */
const BY_INTERRUPT = 1n;

/** The line for the details (KeyID bits included), null when none is wanted, undefined when the operand is invalid. @internal */
export function decodeFatalInfo(platform: KeyIdLayout, config: bigint): bigint | null | undefined {
  if ((config & RESERVED) !== 0n) return undefined;
  const hpa = config & HPA;
  if (hpa !== HPA && !isSharedHpa(platform, hpa, CACHE_LINE)) return undefined;
  const notification = (config >> 54n) & 0b11n;
  if (notification === BY_INTERRUPT && config >> 56n < MIN_VECTOR) return undefined;
  return hpa === HPA ? null : hpa;
}
