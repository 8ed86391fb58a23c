/** What an allocation may ask for, and how memory is accounted. */
import type { AddressRange } from '../abi/address.ts';
import type { NodeDistance } from './node-zones.ts';
import type { PfnRange, ZoneName } from './zone.ts';

/** @public */
export interface AllocOptions {
  /** Node to start with; default 0. */
  readonly node?: number;
  /** Other nodes may be used when it is full; default true. */
  readonly fallback?: boolean;
  /** Nodes that may be used; default all. */
  readonly nodemask?: ReadonlySet<number>;
  /** The kernel may move the pages later to make room for contiguous ranges; default false. */
  readonly movable?: boolean;
  /** The pages never go to a TD, so that they may come from the zone NonTdx; default false. */
  readonly nonTdxOk?: boolean;
  /** Only zones for which this holds. */
  readonly zones?: (zone: ZoneAccount) => boolean;
  /** Only these pages, ascending and disjoint. */
  readonly within?: readonly PfnRange[];
  /** What the memory is for; handed to the fault point. */
  readonly purpose: string;
}

/** @public */
export interface ContigOptions {
  readonly node: number;
  /** Nodes that may be used besides `node`; default every node that has memory. */
  readonly nodemask?: ReadonlySet<number>;
  readonly purpose: string;
}

/** Memory of one node in pages; `free + used + poisoned + ballooned == total` always holds. @public */
export interface NodeAccount {
  readonly node: number;
  readonly total: number;
  readonly free: number;
  readonly used: number;
  /** Pages whose memory has failed and that nobody has any more. */
  readonly poisoned: number;
  readonly ballooned: number;
}

/** One zone of one node. @public */
export interface ZoneAccount {
  readonly node: number;
  readonly name: ZoneName;
  /** Ascending and disjoint. */
  readonly present: readonly PfnRange[];
  readonly presentPages: number;
  readonly freePages: number;
}

/** What of the allocator the TDMR code needs. @public */
export interface ContigAllocator {
  /** First page frame of `pages` contiguous pages, or null. */
  allocContig(pages: number, options: ContigOptions): number | null;
  freePages(pfn: number, pages: number): void;
  /** Node of a page that is present, or undefined. */
  nodeOf(pfn: number): number | undefined;
}

/** @public */
export interface AllocatorOptions {
  /** Nodes at the same distance come in the order of their numbers, beginning after the first; default all are. */
  readonly distance?: NodeDistance;
  /** Memory that goes to the zone Movable. */
  readonly movable?: readonly AddressRange[];
}

/** Whether an allocation may use a zone. @public */
export function mayUse(zone: ZoneAccount, options: Omit<AllocOptions, 'purpose'>): boolean {
  if (zone.name === 'NonTdx' && options.nonTdxOk !== true) return false;
  if (zone.name === 'Movable' && options.movable !== true) return false;
  if (options.nodemask !== undefined && !options.nodemask.has(zone.node)) return false;
  return options.zones?.(zone) ?? true;
}
