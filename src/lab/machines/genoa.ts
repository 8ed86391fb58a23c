/** A machine with SEV-SNP: an EPYC 9004 ("Genoa") server, as small or large as wanted. */
import { alignDown, GIB, MIB, PAGE_2M, PAGE_4K } from '../../abi/address.ts';
import type { MachineDescription, MemoryRange, ProcessorDescription } from '../../machine/description.ts';
import { RMP_BOOKKEEPING_BYTES, RMP_ENTRY_BYTES } from '../../machine/snp/snp.ts';

/** @public */
export interface GenoaOptions {
  /** RAM above 4 GiB on each node; default 16 GiB. A multiple of 2 MiB. */
  readonly memoryBytes?: number;
  /** Sockets, each a node; default 1. */
  readonly nodes?: number;
  /** Logical processors of a socket, two to a core; default 4. */
  readonly processors?: number;
  /** ASIDs for encrypted guests; default 1006, as many as Genoa has. */
  readonly asids?: number;
  /** First ASID for guests without encrypted state, as the BIOS option "minimum SEV ASID" sets it; default 100. */
  readonly minSevAsid?: number;
}

/** Where a Genoa guest has its C-bit (CPUID 0x8000001F.EBX). */
const C_BIT = 51;
const LOW_RAM_END = 2 * GIB;
const HIGH_RAM = 4 * GIB;

/** @public */
export function genoaMachine(options: GenoaOptions = {}): MachineDescription {
  const { memoryBytes = 16 * GIB, nodes = 1, processors = 4, asids = 1006, minSevAsid = 100 } = options;
  const high = Array.from(
    { length: nodes },
    (_, node): MemoryRange => ({
      start: HIGH_RAM + node * memoryBytes,
      end: HIGH_RAM + (node + 1) * memoryBytes,
      node,
      kind: 'ram',
      state: 'present',
    }),
  );
  const low: MemoryRange = { start: 0, end: LOW_RAM_END, node: 0, kind: 'ram', state: 'present' };
  const end = HIGH_RAM + nodes * memoryBytes;
  const rmp = rmpBelow(LOW_RAM_END, end);
  return {
    name: 'epyc-genoa',
    cpuModel: 'genoa',
    physicalAddressBits: 52,
    processors: Array.from({ length: nodes * processors }, (_, i): ProcessorDescription => {
      const node = Math.floor(i / processors);
      return { apicId: node * 128 + (i % processors), package: node, node, present: true };
    }),
    memory: [low, ...high],
    e820: [
      { start: 0, end: 0x9f000, type: 'usable' },
      { start: 0x9f000, end: MIB, type: 'reserved' },
      { start: MIB, end: rmp.start, type: 'usable' },
      { ...rmp, type: 'reserved' },
      ...high.map(({ start, end }) => ({ start, end, type: 'usable' as const })),
    ],
    srat: [low, ...high].map(({ start, end, node }) => ({
      start,
      end,
      node,
      proximityDomain: node,
      hotplug: false,
      nonVolatile: false,
    })),
    cmrs: [],
    keyIds: null,
    seamrr: null,
    module: null,
    seamLoader: null,
    sev: { cBit: C_BIT, maxAsid: asids, minSevAsid, rmp },
  };
}

/** Room for the table of all memory below `memoryEnd`, as high as it goes below `limit`, from a 2 MiB border on. */
function rmpBelow(limit: number, memoryEnd: number): { readonly start: number; readonly end: number } {
  const bytes = (memoryEnd / PAGE_4K) * RMP_ENTRY_BYTES + RMP_BOOKKEEPING_BYTES;
  const start = alignDown(limit - bytes, PAGE_2M);
  return { start, end: limit };
}
