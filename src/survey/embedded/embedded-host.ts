import { type AddressRange, GIB, MIB } from '../../abi/address.ts';
import type {
  E820Entry,
  MachineDescription,
  MemoryRange,
  ProcessorDescription,
} from '../../machine/description.ts';
import { sratFor } from '../memory-ranges.ts';
import { layOutProcessors, type Topology } from '../processors.ts';
import { placeSeamRange } from '../seam-range.ts';
import type { KernelHints, Observed } from '../survey.ts';

/** What a planner must find on an embedded host. @public */
export interface Expected {
  /** Total PAMT in KiB, as the kernel prints it. */
  readonly pamtKb: number;
  /** TDs at once: private KeyIDs without the global one. */
  readonly maxTds: number;
  readonly tdmrs: number;
  /** With reserved areas from gaps between memory blocks; false where a kernel runs out of them. */
  readonly initialisesWithMemblockHoles: boolean;
}

/** A real machine's figures, to run on without a file. @public */
export interface EmbeddedHost {
  readonly machine: MachineDescription;
  readonly kernel: KernelHints;
  readonly observed: Observed;
  readonly expected: Expected;
}

/** What differs between the embedded machines. @internal */
export interface MachineFigures {
  readonly name: string;
  readonly cpuModel: MachineDescription['cpuModel'];
  readonly keyIds: { readonly mktme: number; readonly tdx: number };
  /** The CMR below 4 GiB, then one CMR for each node. */
  readonly cmrs: readonly [AddressRange, ...AddressRange[]];
  /** The memory map below 4 GiB. */
  readonly lowMap: readonly E820Entry[];
  readonly processors: Topology;
  readonly module: string;
}

/** Real-mode memory: RAM that is never convertible, as MCHECK leaves the first MiB out. */
const REAL_MODE_MEMORY: AddressRange = { start: 0, end: MIB };

/** @internal */
export function machineOf(figures: MachineFigures): MachineDescription {
  const { name, cpuModel, keyIds, cmrs, lowMap, module } = figures;
  const [low, ...high] = cmrs;
  const memory: MemoryRange[] = [
    { ...REAL_MODE_MEMORY, end: low.end, node: 0, kind: 'ram', state: 'present' },
    ...high.map((cmr, node): MemoryRange => ({ ...cmr, node, kind: 'ram', state: 'present' })),
  ];
  const processors: readonly ProcessorDescription[] = layOutProcessors(figures.processors);
  const e820: E820Entry[] = [...lowMap, ...high.map((cmr): E820Entry => ({ ...cmr, type: 'usable' }))];
  return {
    name,
    cpuModel,
    physicalAddressBits: 52,
    processors,
    memory,
    e820,
    srat: sratFor(memory),
    cmrs,
    keyIds,
    seamrr: placeSeamRange(memory),
    module,
    seamLoader: { version: '1.5.00', remainingUpdates: 16 },
  };
}

/** The usual map below 4 GiB: RAM in one piece up to `ramEnd`, then what firmware keeps for itself. @internal */
export function plainLowMap(ramEnd: number): readonly E820Entry[] {
  return [
    { start: 0, end: 0x9f000, type: 'usable' },
    { start: 0x9f000, end: MIB, type: 'reserved' },
    { start: MIB, end: ramEnd, type: 'usable' },
    { start: ramEnd, end: 2 * GIB + 256 * MIB, type: 'reserved' },
  ];
}
