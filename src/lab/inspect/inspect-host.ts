/** A host at one moment, for looking at: machine, TDs, KeyIDs, pages by owner, page metadata. Looking changes nothing. */
import { type AddressRange, hex, PAGE_4K } from '../../abi/address.ts';
import { InputError } from '../../abi/input-error.ts';
import type { TdxState } from '../../kernel/tdx-enabler.ts';
import { type SysState, TdxModule } from '../../module/tdx-module.ts';
import type { Host } from '../host.ts';
import { inspectKeyIds, type KeyIdInspection } from './key-ids.ts';
import { inspectTdmrs, type OwnedPages, pagesByOwner, type TdmrPages, usedPages } from './pages.ts';
import { inspectTd, type TdInspection } from './tds.ts';

/** @public */
export interface MachineInspection {
  readonly name: string;
  readonly packages: number;
  readonly lps: number;
  readonly lpsOnline: number;
  /** Null where none is loaded. */
  readonly module: { readonly version: string; readonly state: SysState } | null;
  /** What the kernel makes of TDX. */
  readonly tdx: TdxState;
  /** Which stage of its initialisation failed and why; null where none did. */
  readonly tdxFailure: string | null;
  readonly virtualNs: number;
  readonly seamcalls: number;
  /** Pages of physical memory that have contents, and their bytes. */
  readonly pagesWithContents: number;
  readonly contentBytes: number;
  /** Zero-filled memory without contents that belongs to a KeyID other than 0. */
  readonly claimed: readonly (AddressRange & { readonly keyId: number })[];
  /** Pages with dirty lines, by package. */
  readonly dirtyPages: readonly number[];
}

/** @public */
export interface HostInspection {
  readonly machine: MachineInspection;
  readonly tds: readonly TdInspection[];
  readonly keyIds: readonly KeyIdInspection[];
  readonly pages: readonly OwnedPages[];
  readonly dynamicPamt: boolean;
  readonly tdmrs: readonly TdmrPages[];
}

/** @public */
export interface InspectOptions {
  /** Only the TD with this TDR. */
  readonly tdr?: number | undefined;
  /** With secure EPTs. */
  readonly sept?: boolean;
}

/** Throws InputError when there is no TD with the TDR asked for. @public */
export function inspectHost(
  host: Pick<Host, 'machine' | 'kernel'>,
  { tdr, sept = false }: InspectOptions = {},
): HostInspection {
  const { module } = host.machine.seam;
  const machine = inspectMachine(host);
  if (!(module instanceof TdxModule)) {
    if (tdr !== undefined) throw noSuchTd(tdr, []);
    return { machine, tds: [], keyIds: [], pages: [], dynamicPamt: false, tdmrs: [] };
  }
  const used = usedPages(module.pamt);
  const tdrs = used.filter(({ type }) => type === 'TDR').map(({ address }) => address);
  if (tdr !== undefined && !tdrs.includes(tdr)) throw noSuchTd(tdr, tdrs);
  const byOwner = Map.groupBy(used, ({ owner }) => owner);
  const all = tdrs.map((at) => inspectTd(module, at, byOwner.get(at)!, sept && (tdr ?? at) === at));
  const owners = new Map(
    all.filter(({ lifecycle }) => lifecycle !== 'TEARDOWN').map((td) => [td.keyId, td.tdr]),
  );
  return {
    machine,
    tds: all.filter((td) => (tdr ?? td.tdr) === td.tdr),
    keyIds: inspectKeyIds(module, owners),
    pages: pagesByOwner(used),
    dynamicPamt: module.pamt.dynamic,
    tdmrs: inspectTdmrs(module.pamt, used),
  };
}

function inspectMachine({ machine, kernel }: Pick<Host, 'machine' | 'kernel'>): MachineInspection {
  const { memory, seam } = machine;
  const { module } = seam;
  const failed = kernel.stages.find(({ state }) => state === 'failed');
  return {
    name: machine.description.name,
    packages: machine.packages.length,
    lps: machine.lps.length,
    lpsOnline: kernel.cpus.filter(({ online }) => online).length,
    module: module instanceof TdxModule ? { version: module.version, state: module.sysState } : null,
    tdx: kernel.state,
    tdxFailure: failed?.reason === undefined ? null : `${failed.name}: ${failed.reason.text}`,
    virtualNs: machine.clock.nowNs,
    seamcalls: seam.calls,
    pagesWithContents: memory.framesInUse,
    contentBytes: memory.framesInUse * PAGE_4K,
    claimed: memory.claimedRanges().map(({ start, end, keyId }) => ({ start, end, keyId })),
    dirtyPages: machine.packages.map(({ cache }) => cache.dirtyPages),
  };
}

function noSuchTd(tdr: number, tdrs: readonly number[]): InputError {
  const there = tdrs.length === 0 ? 'there is no TD' : `TDs there are ${tdrs.map(hex).join(', ')}`;
  return new InputError(`--td: no TD has its TDR at ${hex(tdr)}; ${there}`);
}
