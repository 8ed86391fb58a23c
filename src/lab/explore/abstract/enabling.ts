/** Initialisation of the module in an abstract host: what each stage changes, and how it is undone. */
import type { AbstractHost, AbstractState } from './abstract-host.ts';
import { candidates, isTdx, type PageRequest } from './allocation.ts';
import { AREA, HOST, MEMORY, TDX } from './layout.ts';

/** Pages of TDX memory per page of PAMT: 16 bytes of metadata for 4 KiB. */
const PAGES_PER_PAMT_PAGE = 256;
/** The same with Dynamic PAMT: two bits. */
const PAGES_PER_BITMAP_PAGE = 16_384;

/** Why the module cannot be initialised now; null where it can. @internal */
export function whyNotEnabled(host: AbstractHost, s: AbstractState): string | null {
  const { layout, config } = host;
  const state = s[layout.host(HOST.tdx)];
  if (state === TDX.error || state === TDX.disabled) return 'tdx-not-initialized';
  return config.policy.enable === 'first-user' ? null : 'tdx-not-initialized';
}

/** Takes the hot-plug lock and begins. Returns why it fails at once, or null. @internal */
export function beginEnabling(host: AbstractHost, s: AbstractState, owner: number): string | null {
  const { layout } = host;
  s[layout.host(HOST.tdx)] = TDX.enabling;
  if (host.broken !== 'lock') s[layout.host(HOST.lock)] = owner;
  const isLost = host.knob(s, 'hotplug') === 'winner-takes-all' && s[layout.host(HOST.added)] === 1;
  return isLost && host.broken !== 'winner-takes-all' ? failEnabling(host, s, 'memory-hot-added') : null;
}

/** The TDX memory list is fixed. @internal */
export function fixTdxMemory(host: AbstractHost, s: AbstractState): void {
  const { layout, config } = host;
  const { tdxMemory, tdxNodes } = config.policy;
  config.areas.forEach(({ convertible, kind }, area) => {
    const isOnline = s[layout.area(area, AREA.state)] === MEMORY.online;
    const isChosen = {
      'boot-ram': isOnline && kind === 'ram',
      'boot-ram-and-pmem': (isOnline && kind === 'ram') || kind === 'legacy-pmem',
      cmr: convertible,
      nodes: isOnline && kind === 'ram' && tdxNodes.includes(s[layout.area(area, AREA.node)]!),
    }[tdxMemory];
    s[layout.area(area, AREA.tdx)] = Number(isChosen);
  });
}

/** Takes memory for PAMTs. Returns why not, or null. @internal */
export function allocatePamt(host: AbstractHost, s: AbstractState): string | null {
  const { layout, config, source } = host;
  if (source !== null) {
    return takeForKernel(host, s, 'pamt', AREA.pamt) ? null : failEnabling(host, s, 'pamt-allocation');
  }
  let covered = 0;
  let reserved = 0;
  for (let area = 0; area < layout.areas; area++) {
    if (isTdx(host, s, area)) covered += config.areas[area]!.pages;
    reserved += s[layout.area(area, AREA.pamt)]!;
  }
  const request: PageRequest = { isForTd: false, node: 0, isStrict: false, movable: false, nonTdxOk: false };
  const each = config.policy.dynamicPamt ? PAGES_PER_BITMAP_PAGE : PAGES_PER_PAMT_PAGE;
  let rest = Math.ceil(covered / each) - reserved;
  while (rest > 0) {
    const [area] = candidates(host, s, request).areas;
    if (area === undefined) return failEnabling(host, s, 'pamt-allocation');
    const pages = Math.min(rest, s[layout.area(area, AREA.free)]!);
    s[layout.area(area, AREA.free)]! -= pages;
    s[layout.area(area, AREA.pamt)]! += pages;
    rest -= pages;
  }
  return null;
}

/** The module looks at what it is to use. Returns why it refuses, or null. @internal */
export function configure(host: AbstractHost, s: AbstractState): string | null {
  const isWrong = host.config.areas.some(({ convertible }, area) => isTdx(host, s, area) && !convertible);
  return isWrong ? failEnabling(host, s, 'seamcall-failed') : null;
}

/** The module is initialised. @internal */
export function finishEnabling(host: AbstractHost, s: AbstractState): void {
  s[host.layout.host(HOST.tdx)] = TDX.initialized;
  s[host.layout.host(HOST.lock)] = 0;
}

/** A stage failed: nothing is kept, and it is not tried again. @internal */
export function failEnabling(host: AbstractHost, s: AbstractState, reason: string): string {
  const { layout } = host;
  for (let area = 0; area < layout.areas; area++) {
    s[layout.area(area, AREA.tdx)] = 0;
    s[layout.area(area, AREA.free)]! += s[layout.area(area, AREA.pamt)]!;
    s[layout.area(area, AREA.pamt)] = 0;
  }
  s[layout.host(HOST.tdx)] = TDX.error;
  s[layout.host(HOST.lock)] = 0;
  return reason;
}

/** Sets PAMT aside for the memory there is; without room for it nothing is. */
function reservePamt(host: AbstractHost, s: AbstractState): void {
  const { layout } = host;
  fixTdxMemory(host, s);
  allocatePamt(host, s);
  for (let area = 0; area < layout.areas; area++) s[layout.area(area, AREA.tdx)] = 0;
  s[layout.host(HOST.tdx)] = TDX.uninitialized;
}

/** What boot does under the policies that enable then; no task runs yet. @internal */
export function enableAtBoot(host: AbstractHost, s: AbstractState): void {
  const { enable, optedIn, pamtPlacement } = host.config.policy;
  if (enable === 'first-user' || (enable === 'opt-in' && !optedIn)) {
    if (pamtPlacement === 'reserved' && host.source === null) reservePamt(host, s);
    return;
  }
  if (beginEnabling(host, s, 0) !== null) return;
  fixTdxMemory(host, s);
  if (allocatePamt(host, s) !== null || configure(host, s) !== null) return;
  finishEnabling(host, s);
}

/** Takes what a real kernel took for itself; false where it found nothing. Without one it takes nothing. @internal */
export function takeForKernel(
  host: AbstractHost,
  s: AbstractState,
  use: 'kernel' | 'pamt',
  field: number,
): boolean {
  const { layout, source } = host;
  if (source === null) return true;
  for (;;) {
    const found = source.next(use);
    if (typeof found === 'string') return found === 'enough';
    s[layout.area(found.area, AREA.free)]! -= found.pages;
    s[layout.area(found.area, field)]! += found.pages;
  }
}
