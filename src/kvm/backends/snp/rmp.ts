/** How the host changes the reverse map table: pages given to guests and taken back, large pages taken apart. */
import { PAGE_4K } from '../../../abi/address.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';
import { PAGES_PER_2M, RMP_2M, RMP_4K, type RmpPageSize } from '../../../machine/snp/rmp.ts';
import { RMP_STATUS, type RmpState } from '../../../machine/snp/rmp-instructions.ts';
import type { SnpHost } from './snp-host.ts';

/** Whom a page is for: a guest's ASID and address, or ASID 0 for the firmware. @internal */
export interface PageOwner {
  readonly gpa: number;
  readonly asid: number;
  readonly immutable: boolean;
  readonly pageSize?: RmpPageSize;
}

/** Gives the page to a guest or the firmware. Returns RMP_STATUS. @internal */
export function assignPage({ snp }: SnpHost, lp: LogicalProcessor, pfn: number, owner: PageOwner): number {
  const state: RmpState = { pageSize: RMP_4K, ...owner, assigned: true };
  return snp.rmpUpdate(lp, pfn * PAGE_4K, state);
}

/**
 * Makes [pfn, pfn + pages) the host's, large entries that reach beyond it taken apart first. Pages that nobody was given
 * stay as they are. False when some could not be taken back: they are lost to the host.
 * @internal
 */
export function sharePages(host: SnpHost, lp: LogicalProcessor, pfn: number, pages: number): boolean {
  const { rmp } = host.snp;
  const end = pfn + pages;
  let isComplete = true;
  for (let at = pfn; at < end; ) {
    const isLarge = rmp.isInLargePage(at);
    const isWhole = isLarge && at % PAGES_PER_2M === 0 && at + PAGES_PER_2M <= end;
    if (isLarge && !isWhole) splitPage(host, lp, at);
    if (rmp.isAssigned(at) && !sharePage(host, lp, at, isWhole ? RMP_2M : RMP_4K)) isComplete = false;
    at += isWhole ? PAGES_PER_2M : 1;
  }
  return isComplete;
}

/** Takes the 2 MiB entry that holds `pfn` apart. Returns RMP_STATUS. @internal */
export function splitPage({ snp }: SnpHost, lp: LogicalProcessor, pfn: number): number {
  return snp.psmash(lp, (pfn - (pfn % PAGES_PER_2M)) * PAGE_4K);
}

function sharePage(host: SnpHost, lp: LogicalProcessor, pfn: number, pageSize: RmpPageSize): boolean {
  const state: RmpState = { assigned: false, pageSize, immutable: false, gpa: 0, asid: 0 };
  if (host.snp.rmpUpdate(lp, pfn * PAGE_4K, state) === RMP_STATUS.SUCCESS) return true;
  host.leakedPages += pageSize === RMP_2M ? PAGES_PER_2M : 1;
  return false;
}
