/** Which node an address belongs to. */
import { type AddressRange, formatRange, GIB, MIB } from '../abi/address.ts';
import { formatBytes } from '../abi/format-bytes.ts';
import { byStart, firstOverlap, subtract } from '../abi/ranges.ts';
import type { E820Entry, SratEntry } from '../machine/description.ts';
import { type Evidence, inputErrorAt, type Located, type NodeRange } from './evidence.ts';
import { lastWith, type Remarks } from './remarks.ts';

/** From an address on, all memory belongs to a node, until the next boundary. */
interface Boundary {
  readonly start: number;
  readonly node: number;
}

/** @internal */
export class NodeMap {
  readonly #boundaries: readonly Boundary[];

  /** Memory between two ranges counts to the lower one. */
  constructor(ranges: readonly NodeRange[]) {
    const sorted = [...ranges].sort(byStart);
    this.#boundaries = sorted.filter((range, i) => i === 0 || range.node !== sorted[i - 1]!.node);
  }

  nodeAt(address: number): number {
    return this.#boundaries[this.#indexAt(address)]?.node ?? 0;
  }

  /** The range in pieces that each belong to one node. */
  split(range: AddressRange): NodeRange[] {
    const pieces: NodeRange[] = [];
    let { start } = range;
    for (let i = this.#indexAt(start); start < range.end; i++) {
      const end = Math.min(range.end, this.#boundaries[i + 1]?.start ?? range.end);
      pieces.push({ start, end, node: this.#boundaries[i]?.node ?? 0 });
      start = end;
    }
    return pieces;
  }

  /** Index of the last boundary at or below the address; the first one where there is none. */
  #indexAt(address: number): number {
    let low = 0;
    let high = this.#boundaries.length;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.#boundaries[middle]!.start <= address) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }
}

/** The SRAT of the last source that has one. Throws InputError when its entries overlap. @internal */
export function chooseSrat(evidence: readonly Evidence[], remarks: Remarks): readonly Located<SratEntry>[] {
  const srat = lastWith(evidence, 'SRAT', (one) => one.srat.length > 0, remarks)?.srat ?? [];
  const overlap = firstOverlap(srat);
  if (overlap === undefined) return srat;
  const [before, after] = overlap;
  throw inputErrorAt(after.place, `SRAT memory ${formatRange(after)} overlaps ${formatRange(before)}`);
}

/** RAM that a SRAT may leave uncovered before Linux puts no trust in it. */
const MOST_UNCOVERED = MIB;

/**
 * The SRAT, less its present memory where that leaves RAM uncovered and the kernel printed its own ranges per node:
 * then lines of the SRAT are lost.
 * @internal
 */
export function completeSrat(
  srat: readonly SratEntry[],
  map: readonly E820Entry[],
  evidence: readonly Evidence[],
  remarks: Remarks,
): readonly SratEntry[] {
  if (srat.length === 0) return srat;
  const usable = map.filter((entry) => entry.type === 'usable');
  const uncovered = subtract(usable, srat).reduce((sum, { start, end }) => sum + end - start, 0);
  if (uncovered <= MOST_UNCOVERED) return srat;
  const gap = `the SRAT leaves ${formatBytes(uncovered)} of RAM uncovered`;
  if (!evidence.some((one) => one.nodeRanges.length > 0)) {
    remarks.assume(`${gap}: Linux ignores such a SRAT and takes all memory for node 0`);
    return srat;
  }
  remarks.assume(`${gap}: the kernel's own ranges per node are used`);
  return srat.filter((entry) => entry.hotplug);
}

const LOW_MEMORY_END = 4 * GIB;
/** Nodes have like amounts of memory; CMRs that differ more are not one for each node. */
const MOST_UNLIKE = 2;
const MOST_ASSUMED_NODES = 16;

/** Nodes by the SRAT, else by the kernel's memory ranges per node, else by the CMRs, else a single one. @internal */
export function chooseNodes(
  evidence: readonly Evidence[],
  srat: readonly SratEntry[],
  cmrs: readonly AddressRange[],
  remarks: Remarks,
): readonly NodeRange[] {
  const printed = evidence.findLast((one) => one.nodeRanges.length > 0)?.nodeRanges ?? [];
  if (srat.some((entry) => !entry.hotplug)) return srat;
  if (printed.length > 0) return [...printed, ...srat];
  const nodes = evidence.findLast((one) => one.nodes !== undefined)?.nodes;
  const high = cmrs.filter((cmr) => cmr.start >= LOW_MEMORY_END);
  const sizes = high.map((cmr) => cmr.end - cmr.start);
  const alike = Math.max(...sizes) <= MOST_UNLIKE * Math.min(...sizes);
  if (nodes !== 1 && alike && high.length >= 2 && high.length <= MOST_ASSUMED_NODES) {
    remarks.assume(`no SRAT: each of the ${high.length} CMRs above 4 GiB is assumed to be one node`);
    return high.map((cmr, node) => ({ ...cmr, node }));
  }
  if (nodes !== 1) remarks.assume('no SRAT: all memory is assumed to be on one node');
  return [{ start: 0, end: MIB, node: 0 }];
}

/** The ranges with a node of its own for every CXL window that they do not cover. @internal */
export function withCxlNodes(
  ranges: readonly NodeRange[],
  windows: readonly AddressRange[],
  remarks: Remarks,
): readonly NodeRange[] {
  const base = new NodeMap(ranges);
  const firstBytes = windows.map(({ start }) => ({ start, end: start + 1 }));
  const uncoveredStarts = new Set(subtract(firstBytes, ranges).map(({ start }) => start));
  const uncovered = windows.filter((window) => uncoveredStarts.has(window.start));
  if (uncovered.length === 0) return ranges;
  remarks.assume('no SRAT entry for CXL windows: each is assumed to be a node of its own');
  const first = 1 + ranges.reduce((most, range) => Math.max(most, range.node), 0);
  return [
    ...ranges,
    ...uncovered.flatMap(({ start, end }, i) => [
      { start, end, node: first + i },
      { start: end, end: end + 1, node: base.nodeAt(end) },
    ]),
  ];
}
