/**
 * TDMR construction (Linux host rules 1.4): ranges from the memory list, a PAMT for each, reserved areas. Plain
 * data in and out, so that a planner without a machine gets exactly what a bring-up gets.
 */
import { type AddressRange, alignDown, alignUp, formatRange, PAGE_1G, PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import type { ContigAllocator } from './allocation.ts';
import type { TdxMemoryBlock } from './memlist.ts';
import { allocPamts, freePamts, type Pamt, type PamtEntrySizes, pamtNode, pamtRange } from './pamt-alloc.ts';
import type { HolePolicy } from './policy/kernel-policy.ts';
import { type ReservedArea, reservedAreas } from './reserved-areas.ts';

/** What the module limits. @public */
export interface TdmrLimits extends PamtEntrySizes {
  readonly maxTdmrs: number;
  readonly maxReservedPerTdmr: number;
}

/** A TDMR as it goes to the module. @public */
export interface Tdmr extends AddressRange {
  /** Node of the first memory in it, on which its PAMT is wanted. */
  readonly node: number;
  readonly reservedAreas: readonly ReservedArea[];
  readonly pamt: Pamt;
}

/** @public */
export interface TdmrInputs {
  /** TDX memory, ascending and disjoint. */
  readonly memlist: readonly TdxMemoryBlock[];
  /** Convertible memory, ascending; used only with `holes: 'cmr'`. */
  readonly cmrs: readonly AddressRange[];
  readonly limits: TdmrLimits;
  readonly holes: HolePolicy;
  readonly dynamicPamt: boolean;
  readonly allocator: ContigAllocator;
  /** Receives the warnings a kernel logs. */
  readonly warn: (text: string, code: string) => void;
}

/** Fewer unused TDMRs than this are worth a warning. */
const TDMR_RESERVE = 4;

/**
 * Ranges of the TDMRs: every memory block rounded out to 1 GiB, less what the TDMR before covers. Adjacent TDMRs
 * stay apart. Throws ENOSPC when there are more than `maxTdmrs`. An empty list gives one empty TDMR, as in Linux.
 * @public
 */
export function fillOutTdmrs(
  memlist: readonly TdxMemoryBlock[],
  maxTdmrs: number,
  warn: (text: string, code: string) => void,
): readonly AddressRange[] {
  const tdmrs: AddressRange[] = [];
  for (const block of memlist) {
    const last = tdmrs.at(-1);
    const end = alignUp(block.endPfn * PAGE_4K, PAGE_1G);
    if (last !== undefined && end <= last.end) continue;
    const start = Math.max(alignDown(block.startPfn * PAGE_4K, PAGE_1G), last?.end ?? 0);
    if (tdmrs.length === maxTdmrs) {
      const range = { start, end };
      warn(`TDMRs exhausted: ${maxTdmrs} do not cover ${formatRange(range)}`, 'tdmrs-exhausted');
      throw new KernelError(
        'ENOSPC',
        'tdmrs-exhausted',
        `TDMRs exhausted: the module allows ${maxTdmrs}, memory from ${formatRange(range)} on has none`,
        { limit: maxTdmrs, range, tdmrs },
      );
    }
    tdmrs.push({ start, end });
  }
  if (tdmrs.length === 0) tdmrs.push({ start: 0, end: 0 });
  if (maxTdmrs - tdmrs.length < TDMR_RESERVE) {
    warn(`consumed TDMRs reaching limit: ${tdmrs.length} used out of ${maxTdmrs}`, 'tdmrs-near-limit');
  }
  return tdmrs;
}

/**
 * All TDMRs with their PAMTs and reserved areas. Throws ENOSPC (TDMRs or reserved areas exhausted), ENOMEM
 * (a PAMT), EINVAL (a hole not page aligned), with no memory kept; the reason's data name the range, the holes
 * and the limit.
 * @public
 */
export function constructTdmrs(inputs: TdmrInputs): readonly Tdmr[] {
  const { memlist, limits, allocator, warn } = inputs;
  const ranges = fillOutTdmrs(memlist, limits.maxTdmrs, warn);
  const pamts = allocPamts(ranges, memlist, limits, inputs.dynamicPamt, allocator, warn);
  try {
    return attachReservedAreas(ranges, pamts, inputs);
  } catch (error) {
    freePamts(pamts, allocator);
    throw error;
  }
}

/** Makes TDMRs of ranges and their PAMTs. Throws as `reservedAreas`. @public */
export function attachReservedAreas(
  ranges: readonly AddressRange[],
  pamts: readonly Pamt[],
  inputs: Pick<TdmrInputs, 'memlist' | 'cmrs' | 'holes' | 'limits' | 'warn'>,
): readonly Tdmr[] {
  const { limits, warn } = inputs;
  const memory =
    inputs.holes === 'cmr'
      ? inputs.cmrs
      : inputs.memlist.map((block) => ({ start: block.startPfn * PAGE_4K, end: block.endPfn * PAGE_4K }));
  const chunks = pamts.map(pamtRange);
  return ranges.map((range, i) => {
    const pamt = pamts[i]!;
    const areas = reservedAreas(range, memory, chunks, limits.maxReservedPerTdmr, warn);
    const node = pamtNode(range, inputs.memlist) ?? 0;
    return { ...range, node, reservedAreas: areas, pamt };
  });
}
