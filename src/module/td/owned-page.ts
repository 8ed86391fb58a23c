/** Pages that a TD has, found from its own structures rather than from an operand, and how they go back to the host. */
import { PAGE_4K } from '../../abi/address.ts';
import { OPERAND } from '../../abi/operands.ts';
import { LEVEL_2M, LEVEL_4K, PAGE_TYPE, type PageLevel } from '../../abi/page-types.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { PamtEntry } from '../pamt-block.ts';
import type { TdxModule } from '../tdx-module.ts';
import type { LocatedEntry } from './gpa.ts';
import type { Held } from './held.ts';
import { isLeafEntry } from './sept-entry.ts';
import type { TrustDomain } from './trust-domain.ts';

/** Bit 62 of a page's address on output: no page of its 2 MiB range is in use, the page pair can be removed. */
const PAIR_UNUSED = 1n << 62n;

/** @public */
export interface OwnedPage {
  readonly address: number;
  readonly level: PageLevel;
  readonly entry: PamtEntry;
  /** Dynamic PAMT: the 2 MiB entry that counts the 4 KiB pages in use under it. */
  readonly pair: PamtEntry | undefined;
}

/** The page at `address` as the PAMT has it, without locking. @public */
export function ownedPage(module: TdxModule, address: number, level: PageLevel = LEVEL_4K): OwnedPage {
  const entry = module.pamt.entry(address, level);
  const counted = module.pamt.dynamic && level === LEVEL_4K;
  return { address, level, entry, pair: counted ? module.pamt.entry(address, LEVEL_2M) : undefined };
}

/** `ownedPage` with its metadata entry locked exclusively until the leaf ends; or the status, on operand RCX. @public */
export function lockOwnedPage(
  module: TdxModule,
  held: Held,
  address: number,
  level: PageLevel = LEVEL_4K,
): OwnedPage | bigint {
  const page = ownedPage(module, address, level);
  const { entry } = page;
  const status = entry.tryLock('exclusive');
  if (status !== STATUS.TDX_SUCCESS) return withOperand(status, OPERAND.RCX);
  held.add({ release: () => entry.unlock('exclusive') });
  return page;
}

/** The page that a leaf maps, or the table that another entry leads to. @public */
export function mappedPage(module: TdxModule, located: LocatedEntry): OwnedPage {
  return ownedPage(module, ...placeOf(located));
}

/** `lockOwnedPage` for `mappedPage`. @public */
export function lockMappedPage(module: TdxModule, held: Held, located: LocatedEntry): OwnedPage | bigint {
  return lockOwnedPage(module, held, ...placeOf(located));
}

function placeOf({ ept, entry, level }: LocatedEntry): [address: number, level: PageLevel] {
  if (!isLeafEntry(entry)) return [ept.pfnOf(entry) * PAGE_4K, LEVEL_4K];
  return [ept.pageAddress(entry, level), level as PageLevel];
}

/** Gives a page back to the host. Returns what a leaf puts out for it: its address, and the hint about its pair. @public */
export function takeBack(td: TrustDomain, page: OwnedPage): bigint {
  td.addChildren(-(512 ** page.level));
  return releasePage(page);
}

/** `takeBack` for a page that another one of the TD's replaces. @public */
export function releasePage({ address, entry, pair }: OwnedPage): bigint {
  entry.type = PAGE_TYPE.NDA;
  if (pair === undefined) return BigInt(address);
  pair.usedPages--;
  return pair.usedPages === 0 ? BigInt(address) | PAIR_UNUSED : BigInt(address);
}
