/** States of pages as the firmware names them (SEV-SNP firmware ABI, chapter 5): what an RMP entry means. */
import { type Rmp, type RmpEntry, VMPL0_ONLY } from '../rmp.ts';

/** @public */
export type PageState =
  | 'hypervisor'
  | 'reclaim'
  | 'firmware'
  | 'metadata'
  | 'context'
  | 'pre-guest'
  | 'pre-swap'
  | 'guest-invalid'
  | 'guest-valid';

/** @public */
export function pageState({ assigned, asid, immutable, validated, vmsa, gpa }: RmpEntry): PageState {
  if (!assigned) return 'hypervisor';
  if (asid === 0) {
    if (!immutable) return 'reclaim';
    if (vmsa) return 'context';
    return gpa === 0 ? 'firmware' : 'metadata';
  }
  if (immutable) return validated ? 'pre-swap' : 'pre-guest';
  return validated ? 'guest-valid' : 'guest-invalid';
}

/** What PAGE_RECLAIM makes of a page in a state; it refuses pages in all others. @internal */
export const RECLAIMED: Readonly<Partial<Record<PageState, PageState>>> = {
  firmware: 'reclaim',
  metadata: 'reclaim',
  'pre-guest': 'guest-invalid',
  'pre-swap': 'guest-valid',
};

/** Turns a firmware page into the context page of a guest, or back. @internal */
export function setContextPage(rmp: Rmp, pfn: number, isContext: boolean): void {
  rmp.set(pfn, { ...rmp.at(pfn), vmsa: isContext });
}

/** Gives up the firmware's hold on a page: the hypervisor may change its entry again. @internal */
export function makeMutable(rmp: Rmp, pfn: number): void {
  const entry = rmp.at(pfn);
  rmp.set(pfn, { ...entry, immutable: false, gpa: entry.asid === 0 ? 0 : entry.gpa });
}

/** Hands a page of the initial contents to the guest: validated, for good. @internal */
export function makeGuestValid(
  rmp: Rmp,
  pfn: number,
  isVmsa: boolean,
  lowerVmpls: readonly [number, number, number],
): void {
  const permissions = [VMPL0_ONLY[0]!, ...lowerVmpls];
  rmp.set(pfn, { ...rmp.at(pfn), immutable: false, validated: true, vmsa: isVmsa, permissions });
}
