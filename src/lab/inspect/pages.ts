/** Who owns the pages of a host: what the page metadata say, per TDMR and per owner. */
import { type AddressRange, PAGE_4K } from '../../abi/address.ts';
import { LEVEL_2M, PAGE_TYPE, type PageLevel } from '../../abi/page-types.ts';
import type { Pamt } from '../../module/pamt.ts';
import type { TypedEntry } from '../../module/pamt-block.ts';
import type { Tdmr } from '../../module/tdmr-table.ts';

/** @public */
export type PageTypeName = keyof typeof PAGE_TYPE;

/** Pages of one type: how many of each size. @public */
export interface PageCount {
  readonly type: PageTypeName;
  readonly pages4k: number;
  readonly pages2m: number;
  readonly pages1g: number;
  readonly bytes: number;
}

/** @public */
export interface OwnedPages extends PageCount {
  /** Address of the owner's TDR; null for pages that hold page metadata, which are the module's. */
  readonly owner: number | null;
}

/** Page metadata of one TDMR. @public */
export interface TdmrPages extends AddressRange {
  /** End of the part whose metadata are initialised. */
  readonly initialisedEnd: number;
  readonly reservedBytes: number;
  /** Blocks of 1 GiB, and those of them that somebody looked at. */
  readonly blocks: number;
  readonly blocksTouched: number;
  readonly pages: readonly PageCount[];
}

/** A page in use as the metadata describe it. @internal */
export interface UsedPage {
  readonly address: number;
  readonly type: PageTypeName;
  readonly level: PageLevel;
  readonly owner: number | null;
}

const TYPE_NAMES = new Map(
  (Object.keys(PAGE_TYPE) as PageTypeName[]).map((name) => [PAGE_TYPE[name] as number, name]),
);

/** Every page in use, by ascending blocks; a page pair is two pages. @internal */
export function usedPages(pamt: Pamt): readonly UsedPage[] {
  return pamt.blocks.flatMap((block) => Array.from(block.typedEntries(), pagesOf).flat());
}

function pagesOf({ address, level, entry }: TypedEntry): readonly UsedPage[] {
  const { type, owner } = entry;
  if (type === PAGE_TYPE.RSVD) return [];
  if (type === PAGE_TYPE.PAMT && level === LEVEL_2M) {
    return entry.pagePair.map((page) => ({ address: page, type: 'PAMT', level: 0, owner: null }));
  }
  const name = TYPE_NAMES.get(type)!;
  // A TDR is nobody's child; it counts with its TD.
  return [{ address, type: name, level, owner: type === PAGE_TYPE.TDR ? address : owner }];
}

/** Counts by type, in the order of the types' numbers. @internal */
export function countPages(pages: readonly UsedPage[]): readonly PageCount[] {
  return Object.entries(Object.groupBy(pages, ({ type }) => type))
    .map(([type, group]) => count(type as PageTypeName, group))
    .sort((a, b) => PAGE_TYPE[a.type] - PAGE_TYPE[b.type]);
}

function count(type: PageTypeName, pages: readonly UsedPage[]): PageCount {
  const ofLevel = [0, 0, 0];
  for (const { level } of pages) ofLevel[level]!++;
  const [pages4k = 0, pages2m = 0, pages1g = 0] = ofLevel;
  return { type, pages4k, pages2m, pages1g, bytes: (pages4k + 512 * (pages2m + 512 * pages1g)) * PAGE_4K };
}

/** Counts by owner and type, owners ascending, the module first. @internal */
export function pagesByOwner(pages: readonly UsedPage[]): readonly OwnedPages[] {
  const owners = Map.groupBy(pages, ({ owner }) => owner);
  return [...owners.keys()]
    .sort((a, b) => (a ?? -1) - (b ?? -1))
    .flatMap((owner) => countPages(owners.get(owner)!).map((counted) => ({ owner, ...counted })));
}

/** @internal */
export function inspectTdmrs(pamt: Pamt, pages: readonly UsedPage[]): readonly TdmrPages[] {
  const { blocks } = pamt;
  return pamt.tdmrs.map((tdmr) => ({
    start: tdmr.base,
    end: tdmr.end,
    initialisedEnd: tdmr.usableEnd,
    reservedBytes: tdmr.reserved.reduce((sum, { start, end }) => sum + end - start, 0),
    blocks: tdmr.size / 2 ** 30,
    blocksTouched: blocks.filter(({ base }) => isIn(tdmr, base)).length,
    pages: countPages(pages.filter(({ address }) => isIn(tdmr, address))),
  }));
}

function isIn(tdmr: Tdmr, address: number): boolean {
  return tdmr.base <= address && address < tdmr.end;
}
