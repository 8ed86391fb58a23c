/** Large servers made to measure: two sockets per node pair, memory evenly spread, firmware as on real ones. */
import { GIB, MIB, TIB } from '../src/abi/address.ts';
import type { MachineDescription, MemoryRange } from '../src/machine/description.ts';

/** A server with `tib` TiB on `nodes` nodes, one package each, 32 logical processors per package. */
export function server(tib: number, nodes: number): MachineDescription {
  const perNode = (tib * TIB) / nodes;
  const low: MemoryRange = { start: 0, end: 0x7780_0000, node: 0, kind: 'ram', state: 'present' };
  const high = Array.from({ length: nodes }, (_, node): MemoryRange => {
    const start = 4 * GIB + node * perNode;
    return { start, end: start + perNode - (node === 0 ? 2 * GIB : 0), node, kind: 'ram', state: 'present' };
  });
  const memory = [low, ...high];
  return {
    name: `${tib} TiB on ${nodes} nodes`,
    cpuModel: 'sapphire-rapids',
    physicalAddressBits: 52,
    processors: Array.from({ length: nodes * 32 }, (_, i) => ({
      apicId: Math.floor(i / 32) * 128 + (i % 32),
      package: Math.floor(i / 32),
      node: Math.floor(i / 32),
      present: true,
    })),
    memory,
    e820: [
      { start: 0, end: 0x9_f000, type: 'usable' },
      { start: 0x9_f000, end: MIB, type: 'reserved' },
      { start: MIB, end: low.end, type: 'usable' },
      ...high.map(({ start, end }) => ({ start, end, type: 'usable' as const })),
    ],
    srat: memory.map(({ start, end, node }) => ({
      start,
      end,
      node,
      proximityDomain: node,
      hotplug: false,
      nonVolatile: false,
    })),
    cmrs: [{ start: MIB, end: low.end }, ...high.map(({ start, end }) => ({ start, end }))],
    keyIds: { mktme: 63, tdx: 64 },
    seamrr: { start: 64 * TIB, end: 64 * TIB + 256 * MIB },
    module: '1.5.25',
    seamLoader: { version: '1.5.00', remainingUpdates: 10 },
  };
}
