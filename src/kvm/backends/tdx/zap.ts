/**
 * Taking private pages back (Linux host rules 2.4). Pages that the module does not give back are leaked, and the VM is
 * broken; the others of the range are taken back all the same.
 */
import { PAGE_2M, PAGE_4K } from '../../../abi/address.ts';
import { type LeafTable, PAGES_IN_RANGE, rangeOf } from './private-mirror.ts';
import { BLOCK, BLOCK_TRACK_REMOVE, REMOVE, runSteps, TRACK } from './remove-steps.ts';
import type { SecureEpt } from './secure-ept.ts';
import { splitLarge } from './split-join.ts';
import type { TrustDomain } from './trust-domain.ts';
import { writeBack } from './write-back.ts';

const LEVEL_2M = 1;

/** A part of one table: entries [from, to) of those for `range`. */
interface Part {
  readonly range: number;
  readonly table: LeafTable;
  readonly from: number;
  readonly to: number;
}

/** Removes every private page of [startGfn, endGfn). Caller holds the mmu lock. @internal */
export async function zapPrivate(
  td: TrustDomain,
  ept: SecureEpt,
  startGfn: number,
  endGfn: number,
): Promise<void> {
  const { mirror } = ept;
  for (const range of mirror.usedRanges(rangeOf(startGfn), rangeOf(endGfn - 1) + 1)) {
    const first = range * PAGES_IN_RANGE;
    const from = Math.max(startGfn - first, 0);
    const to = Math.min(endGfn - first, PAGES_IN_RANGE);
    const large = mirror.large(range);
    if (large !== undefined) {
      const isWhole = from === 0 && to === PAGES_IN_RANGE;
      // Without a KeyID the TD is over, and needs nothing of the page.
      if (isWhole || !td.hasKeyId) await zapLarge(td, ept, range);
      else if (!(await splitLarge(td, ept, range))) {
        mirror.removeLarge(range);
        td.host.pages.leak(large * PAGE_4K, 'guest', 'it could not be split', PAGES_IN_RANGE);
        continue;
      }
    }
    const table = mirror.table(range);
    if (table === undefined) continue;
    const part = { range, table, from, to };
    if (!td.hasKeyId) reclaimSmall(td, ept, part);
    else if (td.host.options.trackPer === 'page') await zapSmall(td, ept, part);
    else await zapSmallTogether(td, ept, part);
  }
}

async function zapSmall(td: TrustDomain, { mirror }: SecureEpt, part: Part): Promise<void> {
  const { range, table, from, to } = part;
  for (let i = from; i < to && table.mapped > 0; i++) {
    const pfn = table.pfns[i]!;
    if (pfn < 0) continue;
    mirror.remove(table, i);
    const removed = runSteps(td, (range * PAGES_IN_RANGE + i) * PAGE_4K, BLOCK_TRACK_REMOVE);
    comeBack(td, pfn * PAGE_4K, removed === true || (removed !== false && (await removed)));
  }
}

/** One epoch for all pages of a table, which halves the calls that a large zap waits for. */
async function zapSmallTogether(td: TrustDomain, { mirror }: SecureEpt, part: Part): Promise<void> {
  const { range, table, from, to } = part;
  const blocked: number[] = [];
  for (let i = from; i < to && table.mapped > 0; i++) {
    const pfn = table.pfns[i]!;
    if (pfn < 0) continue;
    mirror.remove(table, i);
    if (await runSteps(td, (range * PAGES_IN_RANGE + i) * PAGE_4K, BLOCK)) blocked.push(i, pfn);
    else comeBack(td, pfn * PAGE_4K, false);
  }
  const tracked = await runSteps(td, 0, TRACK);
  for (let at = 0; at < blocked.length; at += 2) {
    const gpa = (range * PAGES_IN_RANGE + blocked[at]!) * PAGE_4K;
    const removed = tracked ? runSteps(td, gpa, REMOVE) : false;
    comeBack(td, blocked[at + 1]! * PAGE_4K, removed === true || (removed !== false && (await removed)));
  }
}

/** Without a KeyID the TD is over: its pages need no blocking. */
function reclaimSmall(td: TrustDomain, { mirror }: SecureEpt, part: Part): void {
  const { table, from, to } = part;
  const { cpu, host } = td;
  const { pages } = host;
  for (let i = from; i < to && table.mapped > 0; i++) {
    const pfn = table.pfns[i]!;
    if (pfn < 0) continue;
    mirror.remove(table, i);
    const page = pfn * PAGE_4K;
    if (!pages.reclaim(cpu, page, 'guest')) continue;
    pages.reset(cpu, page);
    pages.returned(cpu, page);
  }
}

async function zapLarge(td: TrustDomain, { mirror }: SecureEpt, range: number): Promise<void> {
  const page = mirror.large(range)! * PAGE_4K;
  const { pages } = td.host;
  mirror.removeLarge(range);
  if (!td.hasKeyId) {
    if (pages.reclaim(td.cpu, page, 'guest', PAGE_2M)) pages.reset(td.cpu, page, PAGE_2M);
    return;
  }
  const gpa = range * PAGE_2M + LEVEL_2M;
  const removed = (await runSteps(td, gpa, BLOCK_TRACK_REMOVE)) && writeBack(td, td.cpu, page, PAGE_2M);
  if (removed) pages.reset(td.cpu, page, PAGE_2M);
  else pages.leak(page, 'guest', 'it could not be removed from the TD', PAGES_IN_RANGE);
}

/** The way of a page back to the host, once it is removed from the TD; one that is not is leaked. */
function comeBack(td: TrustDomain, page: number, removed: boolean): void {
  const { cpu } = td;
  const { pages } = td.host;
  if (!removed || !writeBack(td, cpu, page)) {
    pages.leak(page, 'guest', 'it could not be removed from the TD');
    return;
  }
  pages.reset(cpu, page);
  pages.returned(cpu, page);
}
