/** The zones of all nodes, and the order in which an allocation goes through them. */
import { type AddressRange, PAGE_4K } from '../abi/address.ts';
import { ZONE_ORDER, Zone, type ZoneName } from './zone.ts';

/** Distance of a node from another, as in a SLIT. @public */
export type NodeDistance = (from: number, to: number) => number;

/** A part of a range that lies in one zone. @internal */
export interface ZonePiece {
  readonly zone: Zone;
  readonly startPfn: number;
  readonly pages: number;
}

/** @internal */
export class NodeZones {
  readonly #distance: NodeDistance;
  /** In the order of ZONE_ORDER. */
  readonly #zones = new Map<number, readonly Zone[]>();
  readonly #fallback = new Map<number, readonly Zone[]>();

  constructor(distance: NodeDistance) {
    this.#distance = distance;
  }

  /** Nodes that have memory, or had it, ascending. */
  get nodes(): readonly number[] {
    return [...this.#zones.keys()].sort((a, b) => a - b);
  }

  /** The zone `name` of a node, made when there is none. */
  zone(node: number, name: ZoneName): Zone {
    const found = this.of(node).find((zone) => zone.name === name);
    if (found !== undefined) return found;
    const zone = new Zone(node, name);
    this.#add(zone);
    return zone;
  }

  of(node: number): readonly Zone[] {
    return this.#zones.get(node) ?? [];
  }

  *all(): IterableIterator<Zone> {
    for (const node of this.nodes) yield* this.of(node);
  }

  /** Zones of `node`, then of the others, the nearest first. */
  fallback(node: number): readonly Zone[] {
    const known = this.#fallback.get(node);
    if (known !== undefined) return known;
    const { nodes } = this;
    const after = [...nodes.filter((other) => other >= node), ...nodes.filter((other) => other < node)];
    const rank = (other: number): number => (other === node ? -1 : this.#distance(node, other));
    const zones = after.sort((a, b) => rank(a) - rank(b)).flatMap((other) => this.of(other));
    this.#fallback.set(node, zones);
    return zones;
  }

  /** The zone that has all these pages, if one has. */
  find(pfn: number, pages: number): Zone | undefined {
    for (const zones of this.#zones.values()) {
      for (const zone of zones) if (zone.holds(pfn, pages)) return zone;
    }
    return undefined;
  }

  /** As `find`. Throws when no zone has them. */
  holding(pfn: number, pages: number): Zone {
    const zone = this.find(pfn, pages);
    if (zone === undefined) throw new Error(`pages [${pfn}, ${pfn + pages}) are not memory of one zone`);
    return zone;
  }

  /** The parts of a range zone by zone. Throws where memory is not present. */
  pieces(range: AddressRange): readonly ZonePiece[] {
    const pieces: ZonePiece[] = [];
    const endPfn = range.end / PAGE_4K;
    for (let pfn = range.start / PAGE_4K; pfn < endPfn; ) {
      const zone = this.holding(pfn, 1);
      const end = Math.min(endPfn, zone.presentRange(pfn)!.endPfn);
      pieces.push({ zone, startPfn: pfn, pages: end - pfn });
      pfn = end;
    }
    return pieces;
  }

  /** State for a saved machine. */
  save() {
    return { zones: [...this.#zones.values()].flat().map((zone) => zone.save()) };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<NodeZones['save']>): void {
    this.#zones.clear();
    for (const zone of saved.zones) this.#add(Zone.restored(zone));
  }

  #add(zone: Zone): void {
    const zones = [...this.of(zone.node), zone];
    zones.sort((a, b) => ZONE_ORDER.indexOf(a.name) - ZONE_ORDER.indexOf(b.name));
    this.#zones.set(zone.node, zones);
    this.#fallback.clear();
  }
}
