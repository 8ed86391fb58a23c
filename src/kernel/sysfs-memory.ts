/** Files about memory: nodes with their zones, memory blocks, and what a TD's VMM should do about them. */
import { PAGE_4K } from '../abi/address.ts';
import type { HostKernel } from './host-kernel.ts';
import { pamtBytes } from './pamt-alloc.ts';
import { policyOf } from './process/mempolicy.ts';
import { directory, file, type SysfsDirectory, type SysfsFile } from './sysfs-tree.ts';
import { formatMemoryPolicy, parseMemoryPolicy } from './td-advice.ts';
import type { Capability } from './tdx-capability.ts';

/** `/sys/devices/system/node`. @internal */
export function nodeFiles(kernel: HostKernel): SysfsDirectory {
  const { nodes, zones } = kernel.tdxCapability();
  return directory(
    kernel.allocator.accounts(),
    ({ node }) => `node${node}`,
    ({ node, total, free, poisoned, ballooned }) => {
      const own = nodes.find((capability) => capability.node === node);
      const pamt = kernel.tdmrs.filter((tdmr) => tdmr.pamt.node === node);
      const pamtTotal = pamt.reduce((sum, tdmr) => sum + pamtBytes(tdmr.pamt), 0);
      const tdxBytes = own?.tdxBytes ?? 0;
      return {
        memory_bytes: file(() => total * PAGE_4K),
        free_bytes: file(() => free * PAGE_4K),
        poisoned_bytes: file(() => poisoned * PAGE_4K),
        ballooned_bytes: file(() => ballooned * PAGE_4K),
        pamt_bytes: file(() => pamtTotal),
        tdx_capable: file(() => (tdxBytes > 0 ? 1 : 0)),
        tdx_capable_bytes: file(() => Math.max(0, tdxBytes - pamtTotal)),
        ...reasonFiles(own?.why ?? null),
        zones: directory(
          zones.filter((zone) => zone.node === node),
          ({ zone }) => zone,
          ({ presentBytes, freeBytes, tdxBytes: usable, tdxCapable, why }) => ({
            memory_bytes: file(() => presentBytes),
            free_bytes: file(() => freeBytes),
            tdx_capable: file(() => (tdxCapable ? 1 : 0)),
            tdx_capable_bytes: file(() => usable),
            ...reasonFiles(why),
          }),
        ),
      };
    },
  );
}

/** `/sys/devices/system/memory`. @internal */
export function memoryFiles(kernel: HostKernel): SysfsDirectory {
  const blocks = directory(
    kernel.memoryBlocks(),
    (block) => `memory${block.index}`,
    ({ state, node, zones, presentBytes, tdxBytes, tdxCapable, why }) => ({
      state: file(() => state),
      node: file(() => node),
      zones: file(() => zones.join(' ')),
      present_bytes: file(() => presentBytes),
      tdx_capable: file(() => (tdxCapable ? 1 : 0)),
      tdx_capable_bytes: file(() => tdxBytes),
      ...reasonFiles(why),
    }),
  );
  // Linux prints this one in hexadecimal without 0x.
  return { block_size_bytes: file(() => kernel.hotplug.blockSize.toString(16)), ...blocks };
}

/** The memory policy that keeps TDs on TDX memory, and why it is needed. @internal */
export function adviceFiles(kernel: HostKernel): SysfsDirectory {
  const { safe, numactl, controlPolicy, freeBytes, why } = kernel.tdAdvice();
  return {
    safe: file(() => (safe ? 1 : 0)),
    numactl: file(() => numactl),
    control_policy: file(() => controlPolicy),
    free_bytes: file(() => freeBytes),
    reason_code: file(() => why.code),
    reason: file(() => why.text),
  };
}

/** The memory policy of the pages that the module keeps about TDs: `default`, `bind:0,1`, ... @internal */
export function controlPolicyFile({ tdMemory, allocator }: HostKernel): SysfsFile {
  return {
    mode: 0o644,
    read: () => formatMemoryPolicy(tdMemory.controlPolicy),
    write: (text) => {
      const { mode, nodes } = parseMemoryPolicy(text);
      tdMemory.controlPolicy = policyOf(mode, nodes, allocator.nodes);
    },
  };
}

function reasonFiles(why: Capability['why']): SysfsDirectory {
  return why === null ? {} : { tdx_reason_code: file(() => why.code), tdx_reason: file(() => why.text) };
}
