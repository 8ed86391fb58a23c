/** Holds the abstract state against the module's real one; a difference names what and where. */
import { hex } from '../../abi/address.ts';
import { OP_STATE } from '../../abi/op-states.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { HKID_STATE } from '../../module/kot.ts';
import { LIFECYCLE, NO_LP, TDCS, TDR, TDVPS, VCPU_STATE } from '../../module/td/layout.ts';
import { SEPT_STATE } from '../../module/td/sept-entry.ts';
import type { AbstractState, AbstractTd, AbstractVcpu } from './abstract-state.ts';
import type { ModuleView, TdView } from './module-view.ts';

/** @public */
export interface Difference {
  /** Which object: a page, a KeyID, a TD, a guest address of it, a vCPU. */
  readonly where: string;
  /** Which of its properties. */
  readonly what: string;
  readonly expected: string;
  readonly found: string;
}

type Value = number | bigint | string | boolean | null | undefined;

class Differences {
  readonly list: Difference[] = [];

  /** Notes a difference unless both are the same. */
  check(where: string, what: string, expected: Value, found: Value): void {
    if (expected === found) return;
    this.list.push({ where, what, expected: show(expected), found: show(found) });
  }
}

function show(value: Value): string {
  return typeof value === 'number' && value > 0xffff ? hex(value) : String(value);
}

/** Every difference between the two. An empty list: they agree. @public */
export function compareState(state: AbstractState, view: ModuleView): readonly Difference[] {
  const found = new Differences();
  comparePages(state, view, found);
  compareKeyIds(state, view, found);
  for (const [tdr, td] of state.tds) {
    const real = view.tds.get(tdr);
    if (real !== undefined) compareTd(state, td, real, found);
  }
  return found.list;
}

/** One line per difference. @public */
export function formatDifference({ where, what, expected, found }: Difference): string {
  return `${where}: ${what} is ${found}, should be ${expected}`;
}

const TYPE_NAMES = new Map(Object.entries(PAGE_TYPE).map(([name, value]) => [value as number, name]));

function comparePages(state: AbstractState, view: ModuleView, found: Differences): void {
  let known = 0;
  for (const { address, level, type, owner } of view.pages) {
    const page = state.pages.get(address);
    if (page?.level !== level) {
      found.check(`page ${hex(address)}`, 'type', 'NDA', `${TYPE_NAMES.get(type)} at level ${level}`);
      continue;
    }
    known++;
    if (page.type === type && (page.owner === owner || type === PAGE_TYPE.TDR)) continue;
    found.check(`page ${hex(address)}`, 'type', TYPE_NAMES.get(page.type), TYPE_NAMES.get(type));
    found.check(`page ${hex(address)}`, 'owner', page.owner, owner);
  }
  if (known !== state.pages.size) findMissingPages(state, view, found);
  found.check('page pairs', 'number', state.pairs.size, view.pairedRanges.length);
  for (const range of view.pairedRanges) {
    const pair = view.module.pamt.entry(range, 1).pagePair;
    found.check(`range ${hex(range)}`, 'page pair', state.pairs.get(range)?.join(), pair.join());
  }
}

function findMissingPages({ pages }: AbstractState, view: ModuleView, found: Differences): void {
  const real = new Set(view.pages.map(({ address, level }) => address + level));
  for (const [address, { type, level }] of pages) {
    if (!real.has(address + level)) {
      found.check(`page ${hex(address)}`, 'type', `${TYPE_NAMES.get(type)} at level ${level}`, 'NDA');
    }
  }
}

function compareKeyIds({ keyIds }: AbstractState, { module: { kot } }: ModuleView, found: Differences): void {
  for (const [keyId, { state, pendingPackages }] of keyIds) {
    if (kot.states[keyId] === HKID_STATE[state] && kot.pendingPackages[keyId] === pendingPackages) continue;
    found.check(`KeyID ${keyId}`, 'state', HKID_STATE[state], kot.states[keyId]);
    found.check(`KeyID ${keyId}`, 'pending packages', pendingPackages, kot.pendingPackages[keyId]);
  }
}

function compareTd(state: AbstractState, td: AbstractTd, real: TdView, found: Differences): void {
  const where = `TD ${hex(td.tdr)}`;
  const { tdr } = real.td;
  found.check(where, 'KeyID', td.keyId, tdr.u16(TDR.HKID));
  found.check(where, 'life cycle', LIFECYCLE[td.lifeCycle], real.lifeCycle);
  found.check(where, 'FATAL', td.fatal, tdr.flag(TDR.FATAL));
  found.check(where, 'packages with its key', td.configuredPackages, tdr.n64(TDR.PKG_CONFIG_BITMAP));
  found.check(where, 'TDCS pages', td.tdcs.length, tdr.u32(TDR.NUM_TDCX));
  found.check(where, 'child pages', td.children, tdr.n64(TDR.CHLDCNT));
  const { tdcs } = real;
  if (tdcs === null) return;
  found.check(where, 'OP_STATE', OP_STATE[td.opState], tdcs.u32(TDCS.OP_STATE));
  if (td.opState === 'UNINITIALIZED') return;
  found.check(where, 'TD_EPOCH', td.epoch, tdcs.u64(TDCS.TD_EPOCH));
  found.check(where, 'vCPUs', td.initialisedVcpus, tdcs.u32(TDCS.NUM_VCPUS));
  for (const vcpu of td.vcpus.values()) compareVcpu(state, td, vcpu, real, found);
  compareSept(td, real, found);
}

function compareVcpu(
  { platform }: AbstractState,
  td: AbstractTd,
  vcpu: AbstractVcpu,
  real: TdView,
  found: Differences,
): void {
  const where = `vCPU ${hex(vcpu.tdvpr)}`;
  const tdvpr = real.td.tdvpr(vcpu.tdvpr);
  found.check(where, 'pages', vcpu.pages.length, tdvpr.u8(TDVPS.NUM_TDVPS_PAGES));
  const lpid = vcpu.lp === null ? NO_LP : platform.lpIds[vcpu.lp];
  found.check(where, 'associated LP', lpid, tdvpr.u32(TDVPS.ASSOC_LPID));
  found.check(where, 'epoch', vcpu.epoch, tdvpr.u64(TDVPS.VCPU_EPOCH));
  // What is left of a vCPU when its TD ends by force is nobody's business.
  if (!td.fatal) found.check(where, 'state', VCPU_STATE[vcpu.state], tdvpr.u8(TDVPS.VCPU_STATE));
}

function compareSept(td: AbstractTd, real: TdView, found: Differences): void {
  for (const { vm, entries } of real.septs) {
    if (vm > 0) {
      const tables = td.l2Tables[vm - 1]!;
      const realTables = entries.filter(({ leaf }) => !leaf);
      found.check(`TD ${hex(td.tdr)} VM ${vm}`, 'tables', tables.size, realTables.length);
      for (const { key, page } of realTables) {
        found.check(`TD ${hex(td.tdr)} VM ${vm} GPA ${hex(key)}`, 'table', tables.get(key), page);
      }
      continue;
    }
    let known = 0;
    for (const { key, state, page } of entries) {
      const entry = td.sept.get(key);
      if (entry !== undefined) known++;
      if (entry?.page === page && SEPT_STATE[entry.state] === state) continue;
      const where = `TD ${hex(td.tdr)} GPA ${hex(key)}`;
      found.check(where, 'state', entry?.state ?? 'FREE', stateName(state));
      found.check(where, 'page', entry?.page, page);
    }
    if (known === td.sept.size) continue;
    const realKeys = new Set(entries.map(({ key }) => key));
    for (const [key, { state }] of td.sept) {
      if (!realKeys.has(key)) found.check(`TD ${hex(td.tdr)} GPA ${hex(key)}`, 'state', state, 'FREE');
    }
  }
}

function stateName(code: number): string {
  return Object.entries(SEPT_STATE).find(([, value]) => value === code)?.[0] ?? `state ${code}`;
}
