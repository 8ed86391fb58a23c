/** The tiny machine with memory plugged in that is no TDX memory, under a policy. */
import { GIB, PAGE_4K } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import type { HostKernel } from '../../../src/kernel/host-kernel.ts';
import type { KernelPolicy } from '../../../src/kernel/policy/kernel-policy.ts';
import { seamcall, setOperands } from '../../../src/kernel/seamcall.ts';
import type { MachineDescription } from '../../../src/machine/description.ts';
import { type RealHost, realHost } from '../bring-up.ts';

/** Outside every CMR, on node 1. */
export const NEW = { start: 16 * GIB, end: 17 * GIB };
export const DIMM = { ...NEW, node: 1, kind: 'ram', state: 'present' } as const;

export async function bootedHost(
  policy: Partial<KernelPolicy> = {},
  change: Partial<MachineDescription> = {},
): Promise<RealHost> {
  const host = realHost({ policy }, change);
  await host.kernel.boot();
  return host;
}

/** With the DIMM online. */
export async function mixedHost(policy: Partial<KernelPolicy>): Promise<RealHost> {
  const host = await bootedHost(policy);
  host.machine.hotAddMemory(DIMM);
  await host.kernel.onlineMemory(NEW);
  return host;
}

/** Takes all TDX memory of `nodes` but `leave` pages of each, so that what comes next is something else. */
export function useUpTdxMemory(kernel: HostKernel, nodes: readonly number[] = [0, 1]): void {
  const within = kernel.tdMemory.ranges;
  for (const node of nodes) {
    const options = { node, fallback: false, within, movable: true, purpose: 'filler' };
    for (let order = 10; order >= 0; order--) while (kernel.allocator.allocPages(order, options) !== null);
  }
}

/** What the module says to a TDR at a page. */
export function createTd({ kernel }: RealHost, pfn: number): bigint {
  const cpu = kernel.cpus[0]!;
  setOperands(cpu, pfn * PAGE_4K, kernel.keyIds.start);
  return seamcall(cpu, TDH.mngCreate);
}
