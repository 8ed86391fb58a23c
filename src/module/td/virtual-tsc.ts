/** A TD's time-stamp counter, which runs at a frequency of its own from when the TD was made (module facts 6). */
import type { ControlStructure } from './control-structure.ts';
import { TDCS } from './layout.ts';

/** Position of the binary point in TDCS.TSC_MULTIPLIER. @internal */
export const TSC_POINT = 48n;

/** What a TD reads of its counter when the CPU's reads `native`. @internal */
export function virtualTsc(tdcs: ControlStructure, native: bigint): bigint {
  const scaled = (native * tdcs.u64(TDCS.TSC_MULTIPLIER)) >> TSC_POINT;
  return BigInt.asUintN(64, scaled + tdcs.u64(TDCS.TSC_OFFSET));
}

/** The CPU's counter when the TD's reads `virtual`; undefined beyond 64 bits. @internal */
export function nativeTsc(tdcs: ControlStructure, virtual: bigint): bigint | undefined {
  return nativeTicks(tdcs, BigInt.asUintN(64, virtual - tdcs.u64(TDCS.TSC_OFFSET)));
}

/** Ticks of the CPU's counter in `ticks` of the TD's; undefined beyond 64 bits. @internal */
export function nativeTicks(tdcs: ControlStructure, ticks: bigint): bigint | undefined {
  const native = (ticks << TSC_POINT) / tdcs.u64(TDCS.TSC_MULTIPLIER);
  return native >> 64n === 0n ? native : undefined;
}
