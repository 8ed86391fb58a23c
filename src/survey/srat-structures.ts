/** What the affinity structures of a SRAT say, whether the table came as bytes or as text. */
import { formatRange } from '../abi/address.ts';
import { addFact, type Evidence, inputErrorAt, type Place } from './evidence.ts';
import { ADDRESS_LIMIT } from './parse-number.ts';

/** Memory affinity (type 1). Flags as in the table: bit 0 enabled, 1 hot-pluggable, 2 non-volatile. @internal */
export interface MemoryAffinity {
  readonly type: 'memory';
  readonly proximityDomain: number;
  readonly base: number;
  readonly length: number;
  readonly flags: number;
  readonly place: Place;
}

/** Processor affinity: local APIC (type 0) or x2APIC (type 2). Flags bit 0 enabled. @internal */
export interface ProcessorAffinityStructure {
  readonly type: 'apic' | 'x2apic';
  readonly proximityDomain: number;
  readonly apicId: number;
  readonly flags: number;
}

/** @internal */
export type AffinityStructure = MemoryAffinity | ProcessorAffinityStructure;

const isSet = (flags: number, bit: number): boolean => Math.floor(flags / 2 ** bit) % 2 === 1;

/**
 * Takes the enabled structures. Proximity domains get node numbers in the order the kernel meets them: x2APIC
 * structures first, then local APIC, then memory. Throws InputError for memory beyond the address space.
 * @internal
 */
export function takeAffinity(evidence: Evidence, structures: readonly AffinityStructure[]): void {
  const nodes = new Map<number, number>();
  const nodeOf = (domain: number): number => {
    if (!nodes.has(domain)) nodes.set(domain, nodes.size);
    return nodes.get(domain)!;
  };
  const enabled = structures.filter((structure) => isSet(structure.flags, 0));
  for (const type of ['x2apic', 'apic'] as const) {
    for (const structure of enabled) {
      if (structure.type !== type) continue;
      evidence.processors.push({ apicId: structure.apicId, node: nodeOf(structure.proximityDomain) });
    }
  }
  for (const structure of enabled) {
    if (structure.type !== 'memory' || structure.length === 0) continue;
    const { base: start, length, flags, proximityDomain, place } = structure;
    const range = { start, end: start + length };
    if (!(range.end <= ADDRESS_LIMIT)) {
      throw inputErrorAt(place, `SRAT memory ${formatRange(range)} ends above 52 bits`);
    }
    const [hotplug, nonVolatile] = [isSet(flags, 1), isSet(flags, 2)];
    const node = nodeOf(proximityDomain);
    addFact(evidence.srat, { ...range, proximityDomain, node, hotplug, nonVolatile, place }, place);
  }
}
