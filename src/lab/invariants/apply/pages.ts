/** Pages that change hands: from the host to the module and back. */
import { PAGE_4K } from '../../../abi/address.ts';
import { LEVEL_4K, PAGE_TYPE, type PageLevel, type PageType } from '../../../abi/page-types.ts';
import {
  type AbstractPage,
  type AbstractState,
  type AbstractTd,
  isRangeInUse,
  pageHolding,
  type Reach,
} from '../abstract-state.ts';

/** What in a TD's own tables was walked through at any time while it ran. */
const ALWAYS: Reach = { since: 0, until: Number.POSITIVE_INFINITY };

/** The host gave the page at `address` to `td`; a TDR has no owner: null. @internal */
export function give(
  state: AbstractState,
  address: number,
  type: PageType,
  td: AbstractTd | null,
  level: PageLevel = LEVEL_4K,
): void {
  const page: AbstractPage = { type, level, owner: td?.tdr ?? 0 };
  const previous = occupant(state, address, level);
  state.effects.push({ kind: 'given', address, page, previous });
  state.pages.set(address, page);
  if (td !== null) td.children += 512 ** level;
}

function occupant(state: AbstractState, address: number, level: PageLevel): AbstractPage | undefined {
  const holder = pageHolding(state, address)?.page;
  if (holder !== undefined) return holder;
  if (state.lent.has(address)) return { type: PAGE_TYPE.PAMT, level: LEVEL_4K, owner: 0 };
  if (level === LEVEL_4K || !isRangeInUse(state, address)) return undefined;
  for (let at = address; ; at += PAGE_4K) {
    const inner = pageHolding(state, at)?.page;
    if (inner !== undefined) return inner;
  }
}

/** The page at `address` went back to the host; `reach` defaults to all of the TD's time. @internal */
export function giveBack(
  state: AbstractState,
  address: number,
  td: AbstractTd | undefined,
  reach: Reach | null = ALWAYS,
): void {
  const page = state.pages.get(address);
  state.effects.push({ kind: 'returned', address, page, td, reach });
  state.pages.delete(address);
  if (td !== undefined && page !== undefined && page.owner !== 0) td.children -= 512 ** page.level;
}

/** The module answered with `found` where the state has `expected`. @internal */
export function answered(
  state: AbstractState,
  what: string,
  expected: number | bigint,
  found: number | bigint,
): void {
  state.effects.push({ kind: 'answered', what, expected, found });
}

/** A call succeeded on something unknown. @internal */
export function unfounded(state: AbstractState, what: string): void {
  state.effects.push({ kind: 'unfounded', what });
}
