/** What a policy promises about the lives of TDs. */
import type { HotplugPolicy, KernelPolicy } from '../../../kernel/policy/kernel-policy.ts';
import { NOT_TDX_PAGE } from '../td/td-host.ts';

/** Policies of hot-plug that keep memory a TD cannot use away from allocations for TDs. */
const KEEPS_APART: ReadonlySet<HotplugPolicy> = new Set([
  'reject-non-tdx',
  'refuse-all',
  'reject-at-add',
  'winner-takes-all',
  'separate-zone',
]);

/** Codes of reasons that mean: there was no TDX memory for it. @internal */
export const LACK_OF_TDX_MEMORY: ReadonlySet<string> = new Set([
  NOT_TDX_PAGE,
  'page-not-tdx',
  'no-tdx-memory',
]);

/** True where no TD is killed for lack of TDX memory, whatever memory comes. @public */
export function promisesNoKill(policy: KernelPolicy): boolean {
  if (policy.tdAllocation !== 'trust') return true;
  return KEEPS_APART.has(policy.hotplug) && policy.tdxMemory !== 'nodes';
}
