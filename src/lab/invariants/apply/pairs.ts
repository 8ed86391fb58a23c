/** Effects of the leaves on pairs of pages that hold the metadata of a 2 MiB range (dynamic PAMT). */
import { R8, RCX, RDX } from '../../../abi/registers.ts';
import type { AbstractState } from '../abstract-state.ts';
import { type HostCall, pageIn, pageOut } from '../host-call.ts';
import type { ApplyLeaf } from './life-cycle.ts';
import { answered, unfounded } from './pages.ts';

/** The pages in two input registers now hold the metadata of the range at `address`. @internal */
export function lend(
  state: AbstractState,
  address: number,
  call: HostCall,
  first: number,
  second: number,
): void {
  const pair = [pageIn(call, first), pageIn(call, second)] as const;
  for (const page of pair) {
    if (state.lent.has(page) || state.pages.has(page)) unfounded(state, 'a page was lent that was not free');
    state.lent.set(page, address);
  }
  if (state.pairs.has(address)) unfounded(state, 'a range got a second page pair');
  state.pairs.set(address, pair);
}

/** The pair of the range at `address` came back in two output registers. @internal */
export function unlend(
  state: AbstractState,
  address: number,
  call: HostCall,
  first: number,
  second: number,
): void {
  const pair = state.pairs.get(address);
  if (pair === undefined) {
    unfounded(state, 'a page pair came back that was not lent');
    return;
  }
  answered(state, 'first page of the pair', pair[0], pageOut(call, first));
  answered(state, 'second page of the pair', pair[1], pageOut(call, second));
  for (const page of pair) state.lent.delete(page);
  state.pairs.delete(address);
}

/** @internal */
export const phymemPamtAdd: ApplyLeaf = (state, call) => lend(state, pageIn(call, RCX), call, RDX, R8);

/** @internal */
export const phymemPamtRemove: ApplyLeaf = (state, call) => unlend(state, pageIn(call, RCX), call, RDX, R8);
