/** Every invariant, one row each. */
import { formatRange, PAGE_4K } from '../../../abi/address.ts';
import { rootCause } from '../engine/outcome.ts';
import type { InvariantLook, ScenarioInvariant } from './invariant.ts';
import { LACK_OF_TDX_MEMORY, promisesNoKill } from './promise.ts';

/** @public */
export const SCENARIO_INVARIANTS: readonly ScenarioInvariant[] = [
  {
    name: 'no-td-killed',
    title: 'under a policy that promises it, no TD is killed for lack of TDX memory',
    when: 'event',
    check: ({ host, outcomes }) => {
      if (!promisesNoKill(host.kernel.policy)) return null;
      const killed = outcomes.find(
        ({ result, reason }) =>
          result === 'killed' && reason !== null && LACK_OF_TDX_MEMORY.has(rootCause(reason).code),
      );
      return killed === undefined ? null : `${killed.event}: ${killed.reason!.text}`;
    },
  },
  {
    name: 'only-tdmr-pages',
    title: 'unless the policy trusts every page, the module only sees pages of initialised TDMRs',
    when: 'event',
    check: ({ host, given }) => {
      const { wrong } = given;
      given.wrong = null;
      return host.kernel.policy.tdAllocation === 'trust' ? null : wrong;
    },
  },
  {
    name: 'reasons',
    title: 'nothing is refused, killed or fails without a reason',
    when: 'always',
    check: ({ outcomes }) => {
      const without = outcomes.find(
        ({ result, reason }) =>
          result !== 'done' && (reason === null || reason.code === '' || reason.text === ''),
      );
      return without === undefined ? null : `${without.event}: ${without.result} without a reason`;
    },
  },
  {
    name: 'keyids-balance',
    title: 'every KeyID in use is of a TD, of another user, or known to be leaked',
    when: 'event',
    check: ({ host }) => {
      const known = host.tds.size + host.foreignKeyIds.length + (host.knownTdHost?.leakedKeyIds ?? 0);
      const { current } = host.kernel.keyIds;
      return known === current ? null : `${current} KeyIDs are in use, and ${known} are accounted for`;
    },
  },
  {
    name: 'pages-balance',
    title: 'every page in use is of a TD, of the host, of the kernel, or known to be leaked',
    when: 'event',
    check: (look) => {
      const used = look.host.kernel.allocator.accounts().reduce((sum, account) => sum + account.used, 0);
      const known = look.kernelPages + lentPages(look.host);
      return known === used ? null : `${used} pages are in use, and ${known} are accounted for`;
    },
  },
  {
    name: 'allocator-audit',
    title: "the allocator's accounts are those of its bitmaps",
    when: 'audit',
    check: ({ host }) => {
      try {
        host.kernel.allocator.audit();
        return null;
      } catch (error) {
        return (error as Error).message;
      }
    },
  },
  {
    name: 'td-pages-kept',
    title: 'a page that the module has of a living TD is memory that is there, and nobody else can get it',
    when: 'audit',
    check: ({ host }) => {
      for (const td of host.living()) {
        for (const [address, order] of td.modulePages()) {
          const page = { start: address, end: address + PAGE_4K * 2 ** order };
          if (!host.host.machine.isPresent(address))
            return `${td.figures.name}: ${formatRange(page)} is gone`;
          if (host.kernel.allocator.isFree(address / PAGE_4K))
            return `${td.figures.name}: ${formatRange(page)} is free`;
        }
      }
      return null;
    },
  },
];

/** 4 KiB pages that TDs and the host's programs have, and what is leaked. @internal */
export function lentPages({ tds, memory, knownTdHost }: InvariantLook['host']): number {
  let pages = memory.pages + (knownTdHost?.leakedPages ?? 0);
  for (const td of tds.values()) pages += td.pageCount;
  const pamt = knownTdHost?.pamt;
  return pamt === null || pamt === undefined ? pages : pages + 2 * pamt.pairs + pamt.leakedPages;
}
