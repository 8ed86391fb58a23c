/** Holds the whole abstract state against the module's real one; a difference names what and where. */
import { hex } from '../../abi/address.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { HKID_STATE } from '../../module/kot.ts';
import { SEPT_STATE } from '../../module/td/sept-entry.ts';
import type { AbstractState, AbstractTd } from './abstract-state.ts';
import { compareTd } from './compare-td.ts';
import { type Difference, Differences } from './differences.ts';
import type { ModuleView, TdView } from './module-view.ts';
import type { SeptView } from './sept-view.ts';

/** Every difference between the two. An empty list: they agree. @public */
export function compareState(state: AbstractState, view: ModuleView): readonly Difference[] {
  const found = new Differences();
  comparePages(state, view, found);
  comparePairs(state, view, found);
  compareKeyIds(state, view, found);
  for (const [tdr, td] of state.tds) {
    const real = view.tds.get(tdr);
    if (real === undefined) continue;
    compareTd(state.platform, td, real.td, found);
    compareTrees(td, real, found);
  }
  return found.list;
}

const TYPE_NAMES = new Map(Object.entries(PAGE_TYPE).map(([name, value]) => [value as number, name]));

function describePage(type: number, level: number): string {
  return level === 0 ? TYPE_NAMES.get(type)! : `${TYPE_NAMES.get(type)} of level ${level}`;
}

function comparePages(state: AbstractState, view: ModuleView, found: Differences): void {
  let known = 0;
  for (const { address, level, type, owner } of view.pages) {
    const page = state.pages.get(address);
    if (page?.level !== level) {
      found.check(`page ${hex(address)}`, 'type', 'NDA', describePage(type, level));
      continue;
    }
    known++;
    if (page.type === type && (page.owner === owner || type === PAGE_TYPE.TDR)) continue;
    found.check(`page ${hex(address)}`, 'type', describePage(page.type, level), describePage(type, level));
    found.check(`page ${hex(address)}`, 'owner', page.owner, owner);
  }
  if (known === state.pages.size) return;
  for (const [address, { type, level }] of state.pages) {
    if (view.pageAt(address, level)?.type === type) continue;
    found.check(`page ${hex(address)}`, 'type', describePage(type, level), 'NDA');
  }
}

function comparePairs({ pairs }: AbstractState, view: ModuleView, found: Differences): void {
  found.check('page pairs', 'number', pairs.size, view.pairedRanges.length);
  for (const range of view.pairedRanges) {
    const pair = view.module.pamt.entry(range, 1).pagePair;
    found.check(`range ${hex(range)}`, 'page pair', pairs.get(range)?.join(), pair.join());
  }
}

function compareKeyIds({ keyIds }: AbstractState, { module: { kot } }: ModuleView, found: Differences): void {
  for (const [keyId, { state, pendingPackages }] of keyIds) {
    if (kot.states[keyId] === HKID_STATE[state] && kot.pendingPackages[keyId] === pendingPackages) continue;
    found.check(`KeyID ${keyId}`, 'state', HKID_STATE[state], kot.states[keyId]);
    found.check(`KeyID ${keyId}`, 'pending packages', pendingPackages, kot.pendingPackages[keyId]);
  }
}

function compareTrees(td: AbstractTd, { septs }: TdView, found: Differences): void {
  for (const sept of septs) {
    if (sept.vm === 0) compareSept(td, sept, found);
    else compareL2Tables(td, sept, found);
  }
}

function compareSept(td: AbstractTd, { entries }: SeptView, found: Differences): void {
  let known = 0;
  for (const { key, state, page } of entries) {
    const entry = td.sept.get(key);
    if (entry !== undefined) known++;
    if (entry?.page === page && SEPT_STATE[entry.state] === state) continue;
    const where = `TD ${hex(td.tdr)} GPA ${hex(key)}`;
    found.check(where, 'state', entry?.state ?? 'FREE', stateName(state));
    found.check(where, 'page', entry?.page, page);
  }
  if (known === td.sept.size) return;
  const realKeys = new Set(entries.map(({ key }) => key));
  for (const [key, { state }] of td.sept) {
    if (!realKeys.has(key)) found.check(`TD ${hex(td.tdr)} GPA ${hex(key)}`, 'state', state, 'FREE');
  }
}

/** What an L2 VM maps follows its TD; its tables are pages of their own. */
function compareL2Tables(td: AbstractTd, { vm, entries }: SeptView, found: Differences): void {
  const tables = td.l2Tables[vm - 1]!;
  const real = entries.filter(({ leaf }) => !leaf);
  found.check(`TD ${hex(td.tdr)} VM ${vm}`, 'tables', tables.size, real.length);
  for (const { key, page } of real) {
    found.check(`TD ${hex(td.tdr)} VM ${vm} GPA ${hex(key)}`, 'table', tables.get(key), page);
  }
}

/** Name of a secure EPT state by its code. @internal */
export function stateName(code: number): string {
  return Object.entries(SEPT_STATE).find(([, value]) => value === code)?.[0] ?? `state ${code}`;
}
