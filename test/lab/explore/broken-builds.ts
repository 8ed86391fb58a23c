/** Kernels that break what a policy promises: they say one thing and do another. */
import type { HostKernel } from '../../../src/kernel/host-kernel.ts';
import type { KernelPolicy } from '../../../src/kernel/policy/kernel-policy.ts';
import type { ScenarioHost } from '../../../src/lab/scenario/engine/scenario-host.ts';

/** A way to break a policy, and how that shows. */
export interface BrokenBuild {
  readonly policy: string;
  readonly what: string;
  readonly prepare?: (host: ScenarioHost) => void;
  /** The knobs that it boots with instead of the policy's. */
  readonly boots?: Partial<KernelPolicy>;
  /** Invariants of which one must be named; an expectation where nothing is said. */
  readonly shows?: readonly string[];
  /** Kinds of events that must not happen, because the policy promises nothing of what follows. */
  readonly without?: readonly string[];
  /** Lines of the scenario: what else happens, and what the policy promises where no invariant says it. */
  readonly more?: string;
}

/** The kernel follows `deeds` and shows the policy that it had. */
function doesInstead(deeds: Partial<KernelPolicy>): (host: ScenarioHost) => void {
  return ({ kernel }) => {
    const { policy } = kernel;
    for (const [knob, value] of Object.entries(deeds)) kernel.setPolicy(knob as 'hotplug', value as 'allow');
    Object.defineProperty(kernel, 'policy', { get: () => policy });
  };
}

/** Listeners of the hot-plug chain are not called. */
function skipNotifiers({ kernel }: ScenarioHost): void {
  kernel.memoryNotifiers.goingOnline = () => {};
}

/** Pages come from wherever the allocator has them. */
function ignoreZones({ kernel }: ScenarioHost): void {
  withoutOption(kernel, 'zones');
}

/** What is put aside comes again. */
function ignoreRanges({ kernel }: ScenarioHost): void {
  withoutOption(kernel, 'within');
}

function withoutOption({ allocator }: HostKernel, option: 'zones' | 'within'): void {
  const allocPages = allocator.allocPages.bind(allocator);
  allocator.allocPages = (order, { [option]: _, ...options }) => allocPages(order, options);
}

/** Memory set apart is handed to whoever asks. */
function openNonTdx({ kernel }: ScenarioHost): void {
  const { allocator } = kernel;
  const allocPages = allocator.allocPages.bind(allocator);
  allocator.allocPages = (order, options) => allocPages(order, { ...options, nonTdxOk: true });
}

/** Pages that go to a TD are forgotten when it ends. */
function leakPages({ kernel }: ScenarioHost): void {
  const { allocator } = kernel;
  const freePages = allocator.freePages.bind(allocator);
  let calls = 0;
  allocator.freePages = (pfn, pages) => {
    if (++calls % 100 !== 0) freePages(pfn, pages);
  };
}

/** KeyIDs of TDs that have ended stay in use. */
function leakKeyIds({ kernel }: ScenarioHost): void {
  kernel.keyIds.free = () => {};
}

const NO_KILL = ['no-td-killed', 'only-tdmr-pages'];

/** One count of what is refused that must be 0. */
function noneRefused(of: string, reason: string): string {
  return `expect: [{ count: refused, of: ${of}, reason: ${reason}, exactly: 0 }]`;
}

const KEXEC = 'events: [{ at: 1m, do: kexec, name: next }]';
const MEMORY_IN_CMR = 'events: [{ at: 1m, do: hot-add, name: conflict, memory: spare }]';

/** At least one for every policy that promises something. */
export const BROKEN_BUILDS: readonly BrokenBuild[] = [
  { policy: 'linux-7.2', what: 'no notifier is called', prepare: skipNotifiers, shows: NO_KILL },
  { policy: 'linux-7.2', what: 'pages are not given back', prepare: leakPages, shows: ['pages-balance'] },
  { policy: 'linux-7.2', what: 'KeyIDs are not given back', prepare: leakKeyIds, shows: ['keyids-balance'] },
  {
    policy: '2022-series',
    what: 'memory may be added',
    prepare: doesInstead({ hotplug: 'allow' }),
    shows: NO_KILL,
  },
  {
    policy: 'refuse-all',
    what: 'memory may be added',
    prepare: doesInstead({ hotplug: 'allow' }),
    shows: NO_KILL,
  },
  {
    policy: 'reject-at-add',
    what: 'nothing is looked at',
    prepare: doesInstead({ hotplug: 'allow' }),
    shows: NO_KILL,
  },
  {
    policy: 'winner-takes-all',
    what: 'both win',
    prepare: doesInstead({ hotplug: 'allow' }),
    shows: NO_KILL,
  },
  {
    policy: 'allow+check',
    what: 'pages are not looked at',
    prepare: doesInstead({ tdAllocation: 'trust' }),
    shows: NO_KILL,
  },
  { policy: 'allow+constrain', what: 'every zone is asked', prepare: ignoreZones, shows: NO_KILL },
  { policy: 'allow+retry', what: 'pages put aside come again', prepare: ignoreRanges, shows: NO_KILL },
  {
    policy: 'separate-zone',
    what: 'the zone is open to all',
    prepare: (host) => {
      openNonTdx(host);
      doesInstead({ tdAllocation: 'trust' })(host);
    },
    shows: NO_KILL,
  },
  { policy: 'separate-node', what: 'nobody is bound', prepare: ignoreZones, shows: NO_KILL },
  {
    policy: 'cmr-based',
    what: 'only boot memory is TDX memory',
    boots: { tdxMemory: 'boot-ram' },
    more: noneRefused('online spare', 'not-tdx-memory'),
  },
  {
    policy: 'pmem-counted',
    what: 'legacy PMEM is left out',
    boots: {},
    more: noneRefused('kmem-bind pmem', 'not-tdx-memory'),
  },
  {
    policy: 'first-user+reserved',
    what: 'nothing is set aside',
    boots: { enable: 'first-user' },
    // It is set aside for the memory of boot alone.
    without: ['online', 'kmem-bind'],
    more: noneRefused('td-start', 'pamt-allocation'),
  },
  { policy: 'dynamic-pamt', what: 'pages are not given back', prepare: leakPages, shows: ['pages-balance'] },
  {
    policy: 'first-user',
    what: 'the first user enables nothing',
    boots: { enable: 'opt-in' },
    more: 'events: [{ at: 1m, do: use-tdx }]\nexpect: [{ tdx: initialized }]',
  },
  {
    policy: 'primed',
    what: 'boot primes nothing',
    boots: { enable: 'opt-in' },
    more: 'expect: [{ tdx: initialized }]',
  },
  {
    policy: 'opt-in',
    what: 'nobody is asked',
    boots: { enable: 'boot' },
    more: 'expect: [{ tdx: uninitialized }]',
  },
  {
    policy: 'kexec-refuse',
    what: 'another kernel is started',
    boots: { kexec: 'flush' },
    more: `${KEXEC}\nexpect: [{ event: next, is: refused }]`,
  },
  {
    policy: 'kexec-flush',
    what: 'no kernel is started',
    boots: { kexec: 'refuse' },
    more: `${KEXEC}\nexpect: [{ event: next, is: done }]`,
  },
  {
    policy: 'cmr-bug',
    what: 'the kernel goes on',
    prepare: doesInstead({ cmrRemoval: 'error' }),
    more: `${MEMORY_IN_CMR}\nexpect: [{ count: failed, least: 1 }]`,
  },
];
