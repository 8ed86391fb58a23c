/** Where pages may come from: zones in the order of fallback, and what an allocation for a TD does under the policy. */
import { ZONE_ORDER } from '../../../kernel/zone.ts';
import type { AbstractHost, AbstractState } from './abstract-host.ts';
import { AREA, MEMORY } from './layout.ts';

/** @internal */
export interface PageRequest {
  readonly isForTd: boolean;
  /** Node to begin with. */
  readonly node: number;
  /** No other node may be used. */
  readonly isStrict: boolean;
  readonly movable: boolean;
  readonly nonTdxOk: boolean;
}

const NON_TDX = ZONE_ORDER.indexOf('NonTdx');
const MOVABLE = ZONE_ORDER.indexOf('Movable');
/** More nodes than a model has. */
const NODES = 4096;

/**
 * Areas that may give the next page: those with free pages in the first zone that has any, and in later ones as long as
 * the zones before may look full. `mayFail`: no zone must have any.
 * @internal
 */
export function candidates(
  host: AbstractHost,
  s: AbstractState,
  request: PageRequest,
): { readonly areas: readonly number[]; readonly mayFail: boolean } {
  const { layout, config } = host;
  const areas: number[] = [];
  let mayFail = true;
  for (let before = -1; mayFail; ) {
    // The next zone that has free pages, with its areas.
    let rank = Number.POSITIVE_INFINITY;
    let free = 0;
    const first = areas.length;
    for (let area = 0; area < layout.areas; area++) {
      const own = s[layout.area(area, AREA.free)]!;
      if (own <= 0) continue;
      const at = rankOf(host, s, area, request.node);
      if (at <= before || at > rank || !mayUse(host, s, area, request)) continue;
      if (at < rank) {
        rank = at;
        free = 0;
        areas.length = first;
      }
      areas.push(area);
      free += own;
    }
    if (free === 0) break;
    before = rank;
    mayFail = free <= config.scattered;
  }
  return { areas, mayFail };
}

/** Why an allocation for a TD finds nothing. @internal */
export function whyNothing(host: AbstractHost, s: AbstractState, request: PageRequest): string {
  const policy = host.knob(s, 'tdAllocation');
  if (policy === 'constrain') return 'no-tdx-memory';
  if (policy !== 'retry') return 'no-page';
  const { layout } = host;
  for (let area = 0; area < layout.areas; area++) {
    if (s[layout.area(area, AREA.free)]! > 0 && isOpen(host, s, area, request)) return 'no-tdx-memory';
  }
  return 'no-page';
}

/** TDX memory, as far as anybody may allocate it. @internal */
export function isTdx(host: AbstractHost, s: AbstractState, area: number): boolean {
  return s[host.layout.area(area, AREA.tdx)] === 1;
}

function mayUse(host: AbstractHost, s: AbstractState, area: number, request: PageRequest): boolean {
  if (!isOpen(host, s, area, request)) return false;
  if (!request.isForTd) return true;
  const policy = host.knob(s, 'tdAllocation');
  if (policy === 'retry') return isTdx(host, s, area) || host.broken === 'retry';
  return policy !== 'constrain' || host.broken === 'constrain' || isCapableZone(host, s, area);
}

/** Whether the allocator may go to the area's zone at all. */
function isOpen(host: AbstractHost, s: AbstractState, area: number, request: PageRequest): boolean {
  const { layout } = host;
  if (request.isStrict && s[layout.area(area, AREA.node)] !== request.node) return false;
  const zone = s[layout.area(area, AREA.zone)];
  if (zone === NON_TDX) return request.nonTdxOk || host.broken === 'separate-zone';
  return zone !== MOVABLE || request.movable;
}

/** Whether all memory of the area's zone is TDX memory. */
function isCapableZone(host: AbstractHost, s: AbstractState, area: number): boolean {
  const { layout } = host;
  for (let other = 0; other < layout.areas; other++) {
    if (s[layout.area(other, AREA.state)] !== MEMORY.online) continue;
    if (s[layout.area(other, AREA.node)] !== s[layout.area(area, AREA.node)]) continue;
    if (s[layout.area(other, AREA.zone)] !== s[layout.area(area, AREA.zone)]) continue;
    if (!isTdx(host, s, other)) return false;
  }
  return true;
}

/** Place of an area's zone on the list of a node. */
function rankOf({ layout }: AbstractHost, s: AbstractState, area: number, from: number): number {
  const node = s[layout.area(area, AREA.node)]!;
  const nodeRank = node >= from ? node - from : node - from + NODES;
  return nodeRank * ZONE_ORDER.length + s[layout.area(area, AREA.zone)]!;
}
