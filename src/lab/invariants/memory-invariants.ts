/** Invariants between page metadata, secure EPTs and the machine's memory. */
import { CACHE_LINE, hex, PAGE_4K } from '../../abi/address.ts';
import { LEVEL_4K, PAGE_TYPE, type PageLevel } from '../../abi/page-types.ts';
import { LIFECYCLE } from '../../module/td/layout.ts';
import type { StateInvariant } from './invariant.ts';
import type { ModuleView, TdView } from './module-view.ts';

/** From one line to look at to the next: a prime number of lines reaches all of a page's. */
const STRIDE = 7 * CACHE_LINE;
/** Who owns a line says what the host reads there; of every so many pages one is read all the same. */
const READ_ONE_IN = 16;

function hasTrees({ lifeCycle, septs }: TdView): boolean {
  return lifeCycle !== LIFECYCLE.TEARDOWN && septs.length > 0;
}

/**
 * Every page and table in a TD's trees is the TD's in the metadata, with the same size; every such page in the
 * metadata is in a tree.
 * @public
 */
export const pamtAndSecureEptAgree: StateInvariant = function* (_state, view) {
  for (const td of view.tds.values()) {
    if (!hasTrees(td)) continue;
    let inTrees = 0;
    for (const { vm, entries } of td.septs) {
      for (const { key, leaf, level, page } of entries) {
        if (vm > 0 && leaf) continue;
        inTrees++;
        const found = view.pageAt(page, leaf ? (level as PageLevel) : LEVEL_4K);
        const type = leaf ? PAGE_TYPE.REG : PAGE_TYPE.EPT;
        if (found?.type === type && found.owner === td.tdr) continue;
        yield `${nameOf(td, vm, key)} leads to ${hex(page)}, which is not the TD's ${leaf ? 'page' : 'table'}`;
      }
    }
    const owned = view.owned.get(td.tdr)?.inTrees ?? 0;
    if (owned !== inTrees) yield `TD ${hex(td.tdr)} has ${inTrees} pages in its trees and owns ${owned}`;
  }
};

function nameOf({ tdr }: TdView, vm: number, key: number): string {
  return `TD ${hex(tdr)} VM ${vm} GPA ${hex(key)}`;
}

/** A private page is mapped once: at one guest address of one TD. An L2 VM maps what its TD maps there. @public */
export const privatePageIsMappedOnce: StateInvariant = function* (_state, view) {
  const used = new Set<number>();
  for (const td of view.tds.values()) {
    if (!hasTrees(td)) continue;
    for (const { vm, entries } of td.septs) {
      for (const { key, leaf, page } of entries) {
        if (vm > 0 && leaf) continue;
        if (used.has(page)) yield `${nameOf(td, vm, key)} leads to ${hex(page)}, as another entry does`;
        used.add(page);
      }
    }
    if (td.septs.length > 1) yield* foreignL2Pages(td);
  }
};

function* foreignL2Pages(td: TdView): Generator<string> {
  const own = new Map(td.septs[0]!.entries.map(({ key, page }) => [key, page]));
  for (const { vm, entries } of td.septs.slice(1)) {
    for (const { key, leaf, page } of entries) {
      if (leaf && own.get(key) !== page) yield `${nameOf(td, vm, key)} maps ${hex(page)}, its TD does not`;
    }
  }
}

/** The memory of a TD's pages is under its KeyID, that of a TDR under the module's; the host reads zeroes there. @public */
export const privatePagesAreUnreadableByTheHost: StateInvariant = function* (state, view) {
  const unaccepted = unacceptedPages(view);
  for (const { address, level, type, owner } of view.pages) {
    const keyId = type === PAGE_TYPE.TDR ? state.platform.globalKeyId : keyIdOf(view, owner);
    if (keyId === undefined || unaccepted.has(address)) continue;
    const size = PAGE_4K * 512 ** level;
    // One line of each page, another one each time.
    const at = address + ((state.time * STRIDE) % size);
    if (view.memory.ownerAt(at) !== keyId) {
      yield `memory at ${hex(at)} is under KeyID ${view.memory.ownerAt(at)}, its TD has ${keyId}`;
    }
    if ((address / PAGE_4K + state.time) % READ_ONE_IN !== 0) continue;
    if (view.memory.read(at, 8, 0).some((byte) => byte !== 0)) yield `the host reads ${hex(at)}`;
  }
};

/** Pages that are no TD's content yet. */
function unacceptedPages(view: ModuleView): ReadonlySet<number> {
  const pages = new Set<number>();
  for (const { septs } of view.tds.values()) {
    for (const { pending, page } of septs[0]?.entries ?? []) if (pending) pages.add(page);
  }
  return pages;
}

function keyIdOf(view: ModuleView, tdr: number): number | undefined {
  const td = view.tds.get(tdr);
  return td === undefined || td.lifeCycle === LIFECYCLE.TEARDOWN ? undefined : td.td.keyId;
}

/** With dynamic PAMT a page pair counts the pages in use in its range, and its own pages are nobody's. @public */
export const pagePairsCountTheirPages: StateInvariant = function* (_state, view) {
  const { pamt } = view.module;
  if (!pamt.dynamic) return;
  const used = new Map<number, number>();
  for (const { address, level } of view.pages) {
    if (level !== LEVEL_4K) continue;
    const range = address - (address % (512 * PAGE_4K));
    used.set(range, (used.get(range) ?? 0) + 1);
    if (pamt.block(address)!.isLent(address)) yield `page ${hex(address)} is in use and lent`;
  }
  for (const range of view.pairedRanges) {
    const entry = pamt.entry(range, 1);
    const count = used.get(range) ?? 0;
    used.delete(range);
    if (entry.usedPages % 512 !== count % 512) {
      yield `the pair of ${hex(range)} counts ${entry.usedPages} pages, ${count} are in use`;
    }
    for (const page of entry.pagePair) {
      if (!pamt.block(page)!.isLent(page)) yield `page ${hex(page)} holds metadata and is not lent`;
    }
  }
  for (const range of used.keys()) yield `range ${hex(range)} has pages in use and no page pair`;
};
