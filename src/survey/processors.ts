/** The machine's processors: from a SRAT, else from the counts a log prints, else assumed. */
import { InputError } from '../abi/input-error.ts';
import { type CpuModel, type ProcessorDescription, packageShift } from '../machine/description.ts';
import type { Evidence, ProcessorAffinity } from './evidence.ts';
import { lastWith, type Remarks } from './remarks.ts';
import { MAX_PACKAGES, MAX_PROCESSORS } from './validate-machine.ts';

/** Where nothing tells; enough to see per-processor and per-package steps. */
const ASSUMED_PROCESSORS_PER_NODE = 4;
const ASSUMED_MODEL: CpuModel = 'sapphire-rapids';

/** Slots in an x2APIC id below the package number: at least 7 bits, as on the real machines. */
const LEAST_APIC_SHIFT = 7;

/** An x2APIC id has 32 bits; the uppermost is a package's alone. */
const MOST_APIC_SHIFT = 31;

/** How many of what; `nodes` are the numbers of the nodes that have processors. @internal */
export interface Topology {
  readonly present: number;
  readonly slots: number;
  readonly packages: number;
  readonly nodes: readonly number[];
}

/** Processors spread evenly over packages and nodes, empty slots last. @internal */
export function layOutProcessors({ present, slots, packages, nodes }: Topology): ProcessorDescription[] {
  const perPackage = Math.ceil(present / packages) + Math.ceil(slots / packages);
  const shift = Math.max(LEAST_APIC_SHIFT, Math.ceil(Math.log2(perPackage)));
  const used = new Array<number>(packages).fill(0);
  const place = (rank: number, total: number, isPresent: boolean): ProcessorDescription => {
    const id = Math.floor((rank * packages) / total);
    const apicId = id * 2 ** shift + used[id]!++;
    const node = nodes[Math.floor((rank * nodes.length) / total)]!;
    return { apicId, package: id, node, present: isPresent };
  };
  return [
    ...Array.from({ length: present }, (_, rank) => place(rank, present, true)),
    ...Array.from({ length: slots }, (_, rank) => place(rank, slots, false)),
  ];
}

/** @internal */
export function chooseProcessors(
  evidence: readonly Evidence[],
  nodes: readonly number[],
  remarks: Remarks,
): ProcessorDescription[] {
  const packages = choosePackages(evidence, nodes, remarks);
  const srat = lastWith(evidence, 'processors of the SRAT', (one) => one.processors.length > 0, remarks);
  const log = evidence.findLast((one) => (one.presentProcessors ?? 0) > 0);
  const listed = new Set(srat?.processors.map(({ apicId }) => apicId)).size;
  // A log that has lost lines shows fewer processors than it counts; one with `maxcpus=` counts fewer.
  const cut = srat !== undefined && log === srat && listed < log.presentProcessors!;
  if (cut) {
    const counts = `${listed} of ${log.presentProcessors} processors`;
    remarks.at({ source: srat.source }, `only ${counts} have SRAT lines, so all are laid out evenly`);
  } else if (srat !== undefined) return fromAffinity(srat.processors, packages, srat.source, remarks);
  const present = log?.presentProcessors ?? ASSUMED_PROCESSORS_PER_NODE * nodes.length;
  if (log === undefined) remarks.assume(`processors are not shown: ${present} are assumed`);
  const slots = log?.processorSlots ?? 0;
  return layOutProcessors({ present, slots, packages: Math.min(packages, present), nodes });
}

/**
 * Firmware numbers processors package by package, so equal shares in order of node and APIC id are packages, unless
 * the APIC ids divide another way.
 */
function fromAffinity(
  affinity: readonly ProcessorAffinity[],
  packages: number,
  source: string,
  remarks: Remarks,
): ProcessorDescription[] {
  const nodeOf = new Map(affinity.map(({ apicId, node }) => [apicId, node]));
  if (nodeOf.size > MAX_PROCESSORS) throw new InputError(`${source}: more than ${MAX_PROCESSORS} processors`);
  const sorted = [...nodeOf].sort(([idA, nodeA], [idB, nodeB]) => nodeA - nodeB || idA - idB);
  const wanted = Math.min(packages, sorted.length);
  const shares = sorted.map(([apicId, node], rank): ProcessorDescription => {
    return { apicId, package: Math.floor((rank * wanted) / sorted.length), node, present: true };
  });
  if (packageShift(shares) !== null) return shares;
  const divided = dividedByApicId(shares, wanted);
  if (divided !== null) return divided;
  remarks.assume(`the APIC ids do not tell ${wanted} packages apart and are numbered anew`);
  const counted = new Array<number>(wanted).fill(0);
  const perPackage = Math.ceil(sorted.length / wanted);
  const shift = Math.max(LEAST_APIC_SHIFT, Math.ceil(Math.log2(perPackage)));
  return shares.map((cpu) => ({ ...cpu, apicId: cpu.package * 2 ** shift + counted[cpu.package]!++ }));
}

/** Packages by the upper part of the APIC ids that has as many values as there are packages; null without one. */
function dividedByApicId(
  processors: readonly ProcessorDescription[],
  packages: number,
): ProcessorDescription[] | null {
  for (let shift = MOST_APIC_SHIFT; shift > 0; shift--) {
    const upper = processors.map(({ apicId }) => Math.floor(apicId / 2 ** shift));
    const numbers = [...new Set(upper)].sort((a, b) => a - b);
    if (numbers.length !== packages) continue;
    return processors.map((cpu, i) => ({ ...cpu, package: numbers.indexOf(upper[i]!) }));
  }
  return null;
}

/** A log's count includes packages that could be added, so nodes limit it; without one, two nodes are one package. */
function choosePackages(evidence: readonly Evidence[], nodes: readonly number[], remarks: Remarks): number {
  const shown = evidence.findLast((one) => (one.packages ?? 0) > 0)?.packages;
  const assumed = nodes.length <= 2 ? nodes.length : Math.ceil(nodes.length / 2);
  if (shown === undefined)
    remarks.assume(`packages are not shown: ${Math.min(assumed, MAX_PACKAGES)} assumed`);
  const packages = shown === undefined ? assumed : nodes.length > 1 ? Math.min(shown, nodes.length) : shown;
  if (packages > MAX_PACKAGES)
    remarks.assume(`${packages} packages are taken as ${MAX_PACKAGES}, the most TDX has`);
  return Math.min(packages, MAX_PACKAGES);
}

/** @internal */
export function chooseCpuModel(evidence: readonly Evidence[], remarks: Remarks): CpuModel {
  const shown = evidence.findLast((one) => one.cpuModel !== undefined)?.cpuModel;
  if (shown === undefined)
    remarks.assume(`no processor model with TDX is shown: ${ASSUMED_MODEL} is assumed`);
  return shown ?? ASSUMED_MODEL;
}
