/** Which memory TDs can use, node by node, zone by zone and block by block, each with the reason where they cannot. */
import { type AddressRange, PAGE_4K } from '../abi/address.ts';
import type { Reason } from '../abi/errno.ts';
import { intersect } from '../abi/ranges.ts';
import type { ZoneAccount } from './allocation.ts';
import type { MemoryBlock } from './memory-blocks.ts';
import type { ZoneName } from './zone.ts';

/** @public */
export interface Capability {
  readonly presentBytes: number;
  readonly freeBytes: number;
  /** Of the memory present, what TDs can use. */
  readonly tdxBytes: number;
  /** TDs can use all of it. */
  readonly tdxCapable: boolean;
  /** Why not; null when capable. */
  readonly why: Reason | null;
}

/** @public */
export interface ZoneCapability extends Capability {
  readonly node: number;
  readonly zone: ZoneName;
}

/** @public */
export interface NodeCapability extends Capability {
  readonly node: number;
}

/** @public */
export interface TdxCapability {
  readonly nodes: readonly NodeCapability[];
  /** Nodes ascending, within a node in the order of allocation. */
  readonly zones: readonly ZoneCapability[];
  readonly blocks: readonly MemoryBlock[];
}

/** What capability follows from. @internal */
export interface CapabilityFacts {
  readonly zones: readonly ZoneAccount[];
  readonly blocks: readonly MemoryBlock[];
  /** Memory TDs can use. */
  readonly usable: readonly AddressRange[];
  /** Why TDX is off; null when it is on. */
  readonly off: Reason | null;
}

/** Of online memory; blocks also of memory that is not. @internal */
export function tdxCapability({ zones, blocks, usable, off }: CapabilityFacts): TdxCapability {
  const zoneCapabilities = zones.map((zone): ZoneCapability => {
    const present = zone.present.map(({ startPfn, endPfn }) => ({
      start: startPfn * PAGE_4K,
      end: endPfn * PAGE_4K,
    }));
    const bytes = {
      presentBytes: zone.presentPages * PAGE_4K,
      freeBytes: zone.freePages * PAGE_4K,
      tdxBytes: intersect(present, usable).reduce((sum, { start, end }) => sum + end - start, 0),
    };
    const what = `zone ${zone.name} of node ${zone.node}`;
    return { node: zone.node, zone: zone.name, ...bytes, ...verdict(what, bytes, off) };
  });
  const nodes = [...new Set(zones.map(({ node }) => node))].map((node): NodeCapability => {
    const own = zoneCapabilities.filter((zone) => zone.node === node);
    const total = (field: 'presentBytes' | 'freeBytes' | 'tdxBytes'): number =>
      own.reduce((sum, zone) => sum + zone[field], 0);
    const bytes = {
      presentBytes: total('presentBytes'),
      freeBytes: total('freeBytes'),
      tdxBytes: total('tdxBytes'),
    };
    return { node, ...bytes, ...verdict(`node ${node}`, bytes, off) };
  });
  return { nodes, zones: zoneCapabilities, blocks };
}

function verdict(
  what: string,
  { presentBytes, tdxBytes }: Pick<Capability, 'presentBytes' | 'tdxBytes'>,
  off: Reason | null,
): Pick<Capability, 'tdxCapable' | 'why'> {
  if (off !== null) return { tdxCapable: false, why: off };
  if (tdxBytes === presentBytes) return { tdxCapable: true, why: null };
  const data = { presentBytes, tdxBytes };
  const why =
    tdxBytes === 0
      ? { code: 'no-tdx-memory', text: `${what} has no TDX memory`, data }
      : {
          code: 'partly-tdx-memory',
          text: `of ${presentBytes} bytes of ${what} only ${tdxBytes} are TDX memory`,
          data,
        };
  return { tdxCapable: false, why };
}
