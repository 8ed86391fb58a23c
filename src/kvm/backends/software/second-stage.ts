/** Second-stage page tables that the host kernel writes itself. */

/** What a guest frame maps. @internal */
export interface StageMapping {
  /** Frame of the first page of 4 KiB: of this mapping, however large. */
  readonly pfn: number;
  readonly gfn: number;
  /** 0 for 4 KiB, 1 for 2 MiB. */
  readonly level: number;
  readonly writable: boolean;
  readonly isPrivate: boolean;
}

/** Pages of 4 KiB in a mapping, by level. */
const PAGES: readonly number[] = [1, 512];

/** @internal */
export class SecondStage {
  /** Per level, by gfn over the pages of the level. */
  readonly #levels: readonly Map<number, StageMapping>[] = PAGES.map(() => new Map());

  get size(): number {
    return this.#levels.reduce((sum, { size }) => sum + size, 0);
  }

  /** Every mapping, the small ones first. */
  *all(): Generator<StageMapping> {
    for (const mappings of this.#levels) yield* mappings.values();
  }

  find(gfn: number): StageMapping | undefined {
    return this.#levels[0]!.get(gfn) ?? this.#levels[1]!.get(Math.floor(gfn / PAGES[1]!));
  }

  /** Puts a mapping in, in place of what its frames had. */
  set(mapping: StageMapping): void {
    const pages = PAGES[mapping.level]!;
    this.remove(mapping.gfn, mapping.gfn + pages, () => true);
    this.#levels[mapping.level]!.set(mapping.gfn / pages, mapping);
  }

  /** Takes out the mappings that have a frame in [startGfn, endGfn) and that `which` picks; true when there were some. */
  remove(startGfn: number, endGfn: number, which: (mapping: StageMapping) => boolean): boolean {
    let removed = false;
    for (const [level, mappings] of this.#levels.entries()) {
      const first = Math.floor(startGfn / PAGES[level]!);
      const last = Math.floor((endGfn - 1) / PAGES[level]!);
      for (const key of keysWithin(mappings, first, last)) {
        if (which(mappings.get(key)!)) removed = mappings.delete(key);
      }
    }
    return removed;
  }
}

/** The keys in [first, last], by the shorter way. */
function keysWithin(map: ReadonlyMap<number, unknown>, first: number, last: number): number[] {
  if (last - first + 1 > map.size) return [...map.keys()].filter((key) => first <= key && key <= last);
  const keys = [];
  for (let key = first; key <= last; key++) if (map.has(key)) keys.push(key);
  return keys;
}
