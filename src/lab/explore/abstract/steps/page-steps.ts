/** Pages for TDs: allocated under the policy in one step, given to the module in the next. */
import { type AbstractHost, type AbstractState, isTdxOn, type PageUse, type Step } from '../abstract-host.ts';
import { candidates, isTdx, type PageRequest, whyNothing } from '../allocation.ts';
import type { AbstractEvent } from '../config.ts';
import { AREA, HOST, OWNER, TASK, TDX } from '../layout.ts';

/** The module refused a page because it is no TDX memory. */
const REFUSED_PAGE = 'module-refused-page';
/** With Dynamic PAMT it refuses the metadata of a 4 KiB page before. */
const REFUSED_PAIR = 'pamt-add-failed';
/** The module is not there any more. */
const FAILED_CALL = 'seamcall-failed';

/** Reasons that the module gives, not the allocator. @internal */
export const OF_MODULE: ReadonlySet<string> = new Set([REFUSED_PAGE, REFUSED_PAIR, FAILED_CALL]);

/** What pages are for. @internal */
export interface Giving<E> {
  readonly what: 'control' | 'memory';
  readonly owner: (event: E) => number;
  /** The whole of it has been given. */
  readonly whole: (host: AbstractHost, s: AbstractState, task: number, event: E) => void;
  /** An allocation or the module has failed. */
  readonly failed: (host: AbstractHost, s: AbstractState, task: number, event: E, reason: string) => void;
}

/** Steps that allocate and give what the register `rest` says. @internal */
export function pageSteps<E extends AbstractEvent>(use: Giving<E>): readonly Step<E>[] {
  const { what } = use;
  const allocate = `allocate ${what}`;
  const give = `give ${what} to the module`;
  const request = (host: AbstractHost, s: AbstractState, event: E): PageRequest => ({
    isForTd: true,
    node: s[host.layout.owner(use.owner(event), OWNER.node)]!,
    isStrict: false,
    movable: false,
    nonTdxOk: false,
  });
  return [
    {
      name: allocate,
      ways: (host, s, _, event) => Math.max(1, candidates(host, s, request(host, s, event)).areas.length),
      take: (host, s, task, event, way) => {
        const { layout } = host;
        const rest = s[layout.task(task, TASK.rest)]!;
        const found = choosePages(host, s, request(host, s, event), { use: what, rest, way });
        if (found === 'enough') return use.whole(host, s, task, event);
        if (found === 'nothing')
          return use.failed(host, s, task, event, whyNothing(host, s, request(host, s, event)));
        const isWrong = !isTdx(host, s, found.area) && host.broken !== 'check';
        if (isWrong && host.knob(s, 'tdAllocation') === 'check')
          return use.failed(host, s, task, event, 'page-not-tdx');
        s[layout.area(found.area, AREA.free)]! -= found.pages;
        s[pagesAt(host, what, use.owner(event), found.area)]! += found.pages;
        s[layout.task(task, TASK.area)] = found.area + 1;
        s[layout.task(task, TASK.pages)] = found.pages;
        host.goto(s, task, give);
      },
    },
    {
      name: give,
      take: (host, s, task, event) => {
        const { layout } = host;
        const area = s[layout.task(task, TASK.area)]! - 1;
        const pages = s[layout.task(task, TASK.pages)]!;
        s[layout.task(task, TASK.area)] = 0;
        s[layout.task(task, TASK.pages)] = 0;
        const state = s[layout.host(HOST.tdx)];
        const isPair = what === 'control' && host.config.policy.dynamicPamt;
        const isGone = !isTdxOn(host, s) || state === TDX.shutDown;
        const refusal = isGone ? FAILED_CALL : isPair ? REFUSED_PAIR : REFUSED_PAGE;
        if (state === TDX.initialized && isTdx(host, s, area)) {
          s[layout.task(task, TASK.rest)]! -= pages;
          return host.goto(s, task, allocate);
        }
        s[layout.area(area, AREA.free)]! += pages;
        s[pagesAt(host, what, use.owner(event), area)]! -= pages;
        use.failed(host, s, task, event, refusal);
      },
    },
  ];
}

/** Where the next pages come from and how many. @internal */
export function choosePages(
  host: AbstractHost,
  s: AbstractState,
  request: PageRequest,
  { use, rest, way }: { readonly use: PageUse; readonly rest: number; readonly way: number },
): { readonly area: number; readonly pages: number } | 'enough' | 'nothing' {
  const { source, layout, config } = host;
  if (source === null) {
    if (rest === 0) return 'enough';
    const area = candidates(host, s, request).areas[way];
    return area === undefined ? 'nothing' : { area, pages: Math.min(rest, s[layout.area(area, AREA.free)]!) };
  }
  const real = source.next(use);
  if (real === 'enough') return real;
  const { areas, mayFail } = candidates(host, s, request);
  if (real === 'nothing') {
    if (mayFail) return real;
    throw new Error(`the kernel found no page for ${use} where the abstract host has some`);
  }
  if (areas.includes(real.area) && s[layout.area(real.area, AREA.free)]! >= real.pages) return real;
  throw new Error(
    `the kernel took ${real.pages} pages of ${config.areas[real.area]!.name} for ${use}, which it may not`,
  );
}

/** All pages of an owner become free. @internal */
export function giveBackAll(host: AbstractHost, s: AbstractState, owner: number): void {
  const { layout } = host;
  for (let area = 0; area < layout.areas; area++) {
    for (const at of [layout.control(owner, area), layout.memory(owner, area)]) {
      s[layout.area(area, AREA.free)]! += s[at]!;
      s[at] = 0;
    }
  }
  s[layout.owner(owner, OWNER.shared)] = 0;
  s[layout.owner(owner, OWNER.node)] = 0;
}

function pagesAt({ layout }: AbstractHost, what: 'control' | 'memory', owner: number, area: number): number {
  return what === 'control' ? layout.control(owner, area) : layout.memory(owner, area);
}
