/**
 * Virtual time that host leaves take, in nanoseconds. Measured figures: SYS.TDMR.INIT from a boot log (5.2 s for
 * 2 TiB, 524,288 calls), SYS.RD and SYS.RDALL from kernel discussion (113 us for about 100 fields one by one, 16 us
 * as a list). The others are guesses of the right order.
 */
import { TDH } from '../abi/leaves.ts';

/** A leaf that is not in the table: entering and leaving SEAM mode with a little work. */
const DEFAULT_COST_NS = 1500;

const COSTS_NS: readonly (readonly [leaf: number, ns: number])[] = [
  [TDH.sysInit, 200_000],
  [TDH.sysLpInit, 60_000],
  [TDH.sysInfo, 4000],
  [TDH.sysRd, 1100],
  [TDH.sysRdall, 16_000],
  [TDH.sysConfig, 30_000],
  [TDH.sysKeyConfig, 100_000],
  [TDH.mngKeyConfig, 100_000],
  [TDH.sysTdmrInit, 9900],
  [TDH.phymemCacheWb, 4_000_000],
  [TDH.sysShutdown, 50_000],
  [TDH.sysUpdate, 50_000],
];

/** Cost by leaf number; a number beyond the table costs `DEFAULT_COST_NS` too. */
const BY_LEAF = new Float64Array(256).fill(DEFAULT_COST_NS);
for (const [leaf, ns] of COSTS_NS) BY_LEAF[leaf] = ns;

/** Nanoseconds that host leaf `number` takes. @internal */
export function leafCostNs(number: number): number {
  return BY_LEAF[number] ?? DEFAULT_COST_NS;
}
