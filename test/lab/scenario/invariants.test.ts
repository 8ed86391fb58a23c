import { describe, expect, it } from 'vitest';
import { MIB } from '../../../src/abi/address.ts';
import { DEFAULT_POLICY } from '../../../src/kernel/policy/kernel-policy.ts';
import { runScenario, type ScenarioRun } from '../../../src/lab/scenario/engine/run-scenario.ts';
import type { ScenarioHost } from '../../../src/lab/scenario/engine/scenario-host.ts';
import { SCENARIO_INVARIANTS } from '../../../src/lab/scenario/invariants/invariants.ts';
import { promisesNoKill } from '../../../src/lab/scenario/invariants/promise.ts';
import { parseScenario } from '../../../src/lab/scenario/language/parse-scenario.ts';
import { POLICY_SETS, policySet } from '../../../src/lab/scenario/policy-sets.ts';

const TEXT = `name: small
title: two TDs beside CXL memory that no CMR holds
host:
  nodes: [{ memory: 4GiB, cpus: 2 }]
  areas:
    cxl: { size: 2GiB, kind: cxl }
events:
  - { at: 1s, do: td-start, name: a, memory: 8MiB }
  - { at: 2s, do: kmem-bind, memory: cxl }
  - { at: 3s, do: host-alloc, name: host, share: 0.2 }
  - { at: 4s, do: td-grow, td: a, size: 2MiB }
  - { at: 5s, do: td-stop, td: a }
`;

/** A policy that lets the memory in and looks at every page. */
const CAREFUL = policySet('allow+check')!;

async function life(breaks?: (host: ScenarioHost) => void, text = TEXT): Promise<ScenarioRun> {
  const scenario = await parseScenario(text, 'small.yaml');
  return runScenario(scenario, {
    policy: CAREFUL,
    auditEvery: 1,
    ...(breaks === undefined ? {} : { prepare: breaks }),
  });
}

const broken = (run: ScenarioRun): string[] => [...new Set(run.violations.map(({ invariant }) => invariant))];

/** Has the next pages for TDs come from memory that no TDMR holds. */
function trustsEveryPage(host: ScenarioHost): void {
  const { tdMemory, allocator } = host.kernel;
  const cxl = host.scenario.areas.get('cxl')!;
  const alloc = tdMemory.alloc.bind(tdMemory);
  tdMemory.alloc = (order, request) => {
    const within = [{ startPfn: cxl.start / 4096, endPfn: cxl.end / 4096 }];
    return allocator.allocPages(order, { purpose: request.purpose, within }) ?? alloc(order, request);
  };
}

describe('invariants of scenarios', () => {
  it('hold in a life that nobody breaks', async () => {
    const run = await life();
    expect(run.violations).toEqual([]);
    expect(run.outcomes.every(({ result }) => result === 'done')).toBe(true);
  });

  it('only-tdmr-pages and no-td-killed: an allocation that forgets to look', async () => {
    const run = await life((host) => {
      trustsEveryPage(host);
      host.kernel.setPolicy('onError', 'kill-td');
    });
    expect(broken(run)).toEqual(expect.arrayContaining(['only-tdmr-pages', 'no-td-killed']));
    expect(run.measures.killed).toEqual({ 'module-refused-page': 1 });
  });

  it('keyids-balance: a KeyID that nobody gives back', async () => {
    const run = await life((host) => {
      host.kernel.keyIds.alloc();
    });
    expect(broken(run)).toEqual(['keyids-balance']);
  });

  it('pages-balance: a page that is freed for somebody', async () => {
    const run = await life((host) => {
      const pages = host.kernel.allocator;
      const free = pages.freePages.bind(pages);
      let isFirst = true;
      // The first page that comes back stays away.
      pages.freePages = (pfn, count) => {
        if (isFirst) isFirst = false;
        else free(pfn, count);
      };
    });
    expect(broken(run)).toEqual(['pages-balance']);
  });

  it('td-pages-kept: a page of a living TD that the allocator has, too', async () => {
    // Four large pages are given at the start, the fifth when the TD grows.
    let large = 0;
    const run = await life(
      (host) => {
        const { allocator, tdMemory } = host.kernel;
        const alloc = tdMemory.alloc.bind(tdMemory);
        tdMemory.alloc = (order, request) => {
          const pfn = alloc(order, request);
          if (order === 9 && ++large === 5) {
            allocator.freePages(pfn, 512);
            host.memory.pages += 512;
          }
          return pfn;
        };
      },
      TEXT.replace(/.*td-stop.*\n/, ''),
    );
    expect(broken(run)).toContain('td-pages-kept');
  });

  it('reasons: a refusal without a word', () => {
    const reasons = SCENARIO_INVARIANTS.find(({ name }) => name === 'reasons')!;
    const mute = { at: 0, event: 'a', do: 'td-start', result: 'refused', reason: null, tookNs: 0 } as const;
    expect(reasons.check({ outcomes: [mute] } as never)).toBe('a: refused without a reason');
    const named = { ...mute, reason: { code: 'no-page', text: 'no page is free', data: {} } };
    expect(reasons.check({ outcomes: [named] } as never)).toBeNull();
  });

  it('allocator-audit: an account that the bitmaps do not bear out', async () => {
    const run = await life((host) => {
      host.kernel.allocator.audit = () => {
        throw new Error('node 0: 1 pages are free, the account says 2');
      };
    });
    expect(broken(run)).toEqual(['allocator-audit']);
  });

  it('promise nothing where every page is trusted and any memory comes', () => {
    const of = (name: string): boolean => promisesNoKill({ ...DEFAULT_POLICY, ...policySet(name)!.knobs });
    expect(POLICY_SETS.filter(({ name }) => !of(name)).map(({ name }) => name)).toEqual([
      'allow+trust',
      'separate-node+trust',
    ]);
    expect(promisesNoKill({ ...DEFAULT_POLICY, tdxMemory: 'nodes' })).toBe(false);
  });

  it('keeps a TD of the size that was asked for', async () => {
    let pages = 0;
    await life((host) => {
      const start = host.tds.set.bind(host.tds);
      host.tds.set = (name, td) => {
        pages = td.memory.pages;
        return start(name, td);
      };
    });
    expect(pages * 4096).toBe(8 * MIB);
  });
});
