/** Each node's memory: what TDs can use of it, what not, and why. */
import { type AddressRange, MIB } from '../../abi/address.ts';
import { pamtBytes, pamtRange } from '../../kernel/pamt-alloc.ts';
import type { E820Type, MachineDescription, MemoryKind } from '../../machine/description.ts';
import type { NotCapable, PlannedNode } from './plan.ts';
import type { Prediction } from './predict.ts';
import { RangeCursor } from './range-cursor.ts';

const KIND_NAMES: Readonly<Record<MemoryKind, string>> = {
  ram: 'memory',
  'legacy-pmem': 'legacy persistent memory',
  nvdimm: 'NVDIMM',
  cxl: 'CXL memory',
  'soft-reserved': 'soft-reserved memory',
};

/** Why memory of a kind is not for TDs where no CMR covers it. */
function outsideCmrs(kind: MemoryKind): string {
  return kind === 'ram' ? 'in no CMR: the module cannot convert it' : `${KIND_NAMES[kind]} in no CMR`;
}

/** Memory that is no System RAM until somebody makes it so. */
const NOT_ONLINE = 'no System RAM unless dax/kmem makes it so';

const E820_WHY: Readonly<Record<E820Type, string>> = {
  usable: '',
  reserved: 'reserved by the firmware',
  'acpi-data': 'ACPI data',
  'acpi-nvs': 'ACPI non-volatile storage',
  unusable: 'marked unusable by the firmware',
  pmem: NOT_ONLINE,
  'legacy-pmem': NOT_ONLINE,
  'soft-reserved': NOT_ONLINE,
};

interface Piece extends AddressRange {
  readonly node: number;
  readonly kind: MemoryKind;
  readonly why: string | null;
}

/** @internal */
export function nodeAccounts(
  description: MachineDescription,
  prediction: Prediction,
): readonly PlannedNode[] {
  const pieces = classify(description, prediction);
  const nodes = new Set([
    ...pieces.map((piece) => piece.node),
    ...description.memory.filter((range) => range.state === 'hot-pluggable').map((range) => range.node),
    ...description.processors.map((cpu) => cpu.node),
  ]);
  return [...nodes].sort((a, b) => a - b).map((node) => account(node, pieces, description, prediction));
}

function account(
  node: number,
  pieces: readonly Piece[],
  description: MachineDescription,
  prediction: Prediction,
): PlannedNode {
  const mine = pieces.filter((piece) => piece.node === node);
  const bytes = (ranges: readonly AddressRange[]): number =>
    ranges.reduce((sum, r) => sum + r.end - r.start, 0);
  const pamts = prediction.tdmrs.flatMap(({ pamt }) => (pamt?.node === node ? [pamtBytes(pamt)] : []));
  const pamtTotal = pamts.reduce((sum, size) => sum + size, 0);
  const packages = description.processors.filter((cpu) => cpu.node === node).map((cpu) => cpu.package);
  const capable = bytes(mine.filter((piece) => piece.why === null));
  const nonTdx = mine.flatMap(({ start, end, kind, why }): NotCapable[] =>
    why === null ? [] : [{ start, end, bytes: end - start, kind, why }],
  );
  const hotPluggable = description.memory.filter(
    (range) => range.node === node && range.state === 'hot-pluggable',
  );
  return {
    node,
    packages: [...new Set(packages)],
    memoryBytes: bytes(mine),
    tdxBytes: capable,
    nonTdxBytes: bytes(nonTdx),
    nonTdx,
    pamtBytes: pamtTotal,
    pamtKb: pamtTotal / 1024,
    hotPluggableBytes: bytes(hotPluggable),
  };
}

/** Present memory cut wherever its use changes, ascending, neighbours of equal use joined. */
function classify(
  description: MachineDescription,
  { memblock, memlist, tdmrs }: Prediction,
): readonly Piece[] {
  const tdx = memlist.map(({ startPfn, endPfn }) => ({ start: startPfn * 4096, end: endPfn * 4096 }));
  const pamts = tdmrs.flatMap(({ pamt }, i) => (pamt === null ? [] : [{ ...pamtRange(pamt), tdmr: i }]));
  const present = description.memory.filter((range) => range.state === 'present');
  const sorted = <T extends AddressRange>(ranges: readonly T[]): T[] =>
    [...ranges].sort((a, b) => a.start - b.start);
  const cursors = {
    memory: new RangeCursor(sorted(present)),
    firmware: new RangeCursor(sorted(description.e820)),
    kernel: new RangeCursor(memblock),
    tdx: new RangeCursor(tdx),
    cmr: new RangeCursor(description.cmrs),
    pamt: new RangeCursor(sorted(pamts)),
  };
  const cuts = [present, description.e820, memblock, tdx, description.cmrs, pamts].flatMap((ranges) =>
    ranges.flatMap(({ start, end }) => [start, end]),
  );
  const edges = [...new Set([...cuts, MIB])].sort((a, b) => a - b);
  const pieces: Piece[] = [];
  for (const [i, start] of edges.entries()) {
    const end = edges[i + 1];
    const memory = cursors.memory.at(start);
    if (end === undefined || memory === undefined) continue;
    const pamt = cursors.pamt.at(start);
    const entry = cursors.firmware.at(start);
    const convertible = cursors.cmr.at(start) !== undefined;
    // Memory that the kernel manages is on the node it takes it for, whatever the hardware's.
    const node = cursors.kernel.at(start)?.node ?? memory.node;
    const why = whyNotCapable(
      start,
      memory.kind,
      entry?.type,
      cursors.tdx.at(start) !== undefined,
      convertible,
      pamt?.tdmr,
    );
    const last = pieces.at(-1);
    if (last?.end === start && last.node === node && last.kind === memory.kind && last.why === why) {
      pieces[pieces.length - 1] = { ...last, end };
    } else pieces.push({ start, end, node, kind: memory.kind, why });
  }
  return pieces;
}

function whyNotCapable(
  start: number,
  kind: MemoryKind,
  firmware: E820Type | undefined,
  inMemlist: boolean,
  convertible: boolean,
  pamtOf: number | undefined,
): string | null {
  if (pamtOf !== undefined) return `holds the PAMT of TDMR ${pamtOf}`;
  if (!inMemlist) {
    if (start < MIB) return 'below 1 MiB';
    if (firmware !== undefined && firmware !== 'usable') {
      const why = E820_WHY[firmware];
      return why === NOT_ONLINE ? `${convertible ? KIND_NAMES[kind] : outsideCmrs(kind)}, ${why}` : why;
    }
    return kind === 'ram' ? 'not in the memory map' : outsideCmrs(kind);
  }
  return convertible ? null : outsideCmrs(kind);
}
