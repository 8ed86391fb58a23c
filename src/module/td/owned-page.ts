/** Pages that a TD has, found from its secure EPT rather than from an operand, and how they go back to the host. */
import { PAGE_4K } from '../../abi/address.ts';
import { OPERAND } from '../../abi/operands.ts';
import { LEVEL_2M, LEVEL_4K, type PageLevel } from '../../abi/page-types.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { PamtEntry } from '../pamt-block.ts';
import type { TdxModule } from '../tdx-module.ts';
import type { LocatedEntry } from './gpa.ts';
import type { Held } from './held.ts';
import { takePage } from './operands.ts';
import { isLeafEntry } from './sept-entry.ts';
import type { TrustDomain } from './trust-domain.ts';

/** @public */
export interface OwnedPage {
  readonly address: number;
  readonly level: PageLevel;
  readonly entry: PamtEntry;
  /** The 2 MiB entry above a 4 KiB one. */
  readonly parent: PamtEntry | undefined;
}

/** The page that a leaf maps, or the table that another entry leads to; without locking its metadata. @public */
export function mappedPage(module: TdxModule, { ept, entry, level }: LocatedEntry): OwnedPage {
  const isLeaf = isLeafEntry(entry);
  const address = isLeaf ? ept.pageAddress(entry, level) : ept.pfnOf(entry) * PAGE_4K;
  const pageLevel = isLeaf ? (level as PageLevel) : LEVEL_4K;
  return {
    address,
    level: pageLevel,
    entry: module.pamt.entry(address, pageLevel),
    parent: pageLevel === LEVEL_4K ? module.pamt.entry(address, LEVEL_2M) : undefined,
  };
}

/** `mappedPage` with its metadata entry locked exclusively until the leaf ends; or the status, on operand RCX. @public */
export function lockMappedPage(module: TdxModule, held: Held, located: LocatedEntry): OwnedPage | bigint {
  const page = mappedPage(module, located);
  const { entry } = page;
  const status = entry.tryLock('exclusive');
  if (status !== STATUS.TDX_SUCCESS) return withOperand(status, OPERAND.RCX);
  held.add({ release: () => entry.unlock('exclusive') });
  return page;
}

/** Gives a page back to the host. Returns what a leaf puts out for it: its address, and the hint about its pair. @public */
export function takeBack(td: TrustDomain, page: OwnedPage): bigint {
  td.addChildren(-(512 ** page.level));
  return replacePage(page);
}

/** `takeBack` for a page that another one of the TD's replaces. @public */
export function replacePage(page: OwnedPage): bigint {
  return BigInt(page.address) | takePage(page);
}
