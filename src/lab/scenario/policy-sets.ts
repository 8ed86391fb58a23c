/** The policies of the debate as data: each a choice of knobs that somebody argued for as a whole. */
import type { PolicySet } from './scenario.ts';

/** In the order of compare's rows. @public */
export const POLICY_SETS: readonly PolicySet[] = [
  {
    name: 'linux-7.2',
    title: 'today: all boot memory is TDX memory, other memory may not go online',
    knobs: {},
  },
  {
    name: '2022-series',
    title: 'the first series: enabled by the first user, no memory hot-plug, shut down on errors, no kexec',
    knobs: {
      enable: 'first-user',
      tdxMemory: 'boot-ram-and-pmem',
      hotplug: 'refuse-all',
      onError: 'shutdown',
      kexec: 'flush',
      cmrRemoval: 'bug',
    },
  },
  { name: 'refuse-all', title: 'no memory hot-plug while TDX is enabled', knobs: { hotplug: 'refuse-all' } },
  {
    name: 'reject-at-add',
    title: 'non-TDX memory is refused as soon as it is added',
    knobs: { hotplug: 'reject-at-add' },
  },
  {
    name: 'winner-takes-all',
    title: 'TDX first: no hot-plug; hot-plug first: no TDX',
    knobs: { hotplug: 'winner-takes-all', enable: 'first-user' },
  },
  {
    name: 'cmr-based',
    title: 'every convertible region is TDX memory, online or not',
    knobs: { tdxMemory: 'cmr', holes: 'cmr' },
  },
  {
    name: 'allow+trust',
    title: 'any memory comes online; the module refuses what is wrong',
    knobs: { hotplug: 'allow', tdAllocation: 'trust', onError: 'kill-td' },
  },
  {
    name: 'allow+check',
    title: 'any memory comes online; a wrong page fails the allocation',
    knobs: { hotplug: 'allow', tdAllocation: 'check', onError: 'refuse' },
  },
  {
    name: 'allow+constrain',
    title: 'any memory comes online; TDs get pages of zones that are all TDX memory',
    knobs: { hotplug: 'allow', tdAllocation: 'constrain', onError: 'refuse' },
  },
  {
    name: 'allow+retry',
    title: 'any memory comes online; wrong pages are put aside until a right one comes',
    knobs: { hotplug: 'allow', tdAllocation: 'retry', onError: 'refuse' },
  },
  {
    name: 'separate-zone',
    title: 'non-TDX memory in a zone of its own',
    knobs: { hotplug: 'separate-zone', tdAllocation: 'check', onError: 'refuse' },
  },
  {
    name: 'separate-node',
    title: 'non-TDX memory on a node of its own, TDs bound to the others',
    knobs: { hotplug: 'separate-node', tdAllocation: 'constrain', onError: 'refuse' },
  },
  {
    name: 'separate-node+trust',
    title: 'non-TDX memory on a node of its own, and nobody is bound',
    knobs: { hotplug: 'separate-node', tdAllocation: 'trust', onError: 'kill-td' },
  },
  {
    name: 'dynamic-pamt',
    title: "today's with metadata of 4 KiB pages allocated as needed",
    knobs: { dynamicPamt: true },
  },
  {
    name: 'first-user',
    title: "today's, enabled by the first TD",
    knobs: { enable: 'first-user' },
  },
  {
    name: 'first-user+reserved',
    title: 'enabled by the first TD, with PAMT set aside at boot',
    knobs: { enable: 'first-user', pamtPlacement: 'reserved' },
  },
  { name: 'opt-in', title: 'only with use_tdx=on, which was not given', knobs: { enable: 'opt-in' } },
  {
    name: 'primed',
    title: 'proved at boot by a throw-away TD',
    knobs: { enable: 'primed' },
  },
  {
    name: 'pmem-counted',
    title: 'legacy PMEM counts as TDX memory',
    knobs: { tdxMemory: 'boot-ram-and-pmem' },
  },
  {
    name: 'kexec-flush',
    title: "today's, but kexec only flushes caches, as without TDH.SYS.DISABLE",
    knobs: { kexec: 'flush' },
  },
  { name: 'kexec-refuse', title: "today's, but kexec is refused once TDX is on", knobs: { kexec: 'refuse' } },
  {
    name: 'cmr-bug',
    title: "today's, but the kernel stops when memory in a CMR goes",
    knobs: { cmrRemoval: 'bug' },
  },
];

/** @public */
export const POLICY_SET_NAMES: readonly string[] = POLICY_SETS.map(({ name }) => name);

/** The set of a name, or undefined. @public */
export function policySet(name: string): PolicySet | undefined {
  return POLICY_SETS.find((set) => set.name === name);
}
