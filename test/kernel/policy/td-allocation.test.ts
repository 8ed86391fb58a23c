/** The knob tdAllocation: for each value what was said for it, and against it, happening. */
import { describe, expect, it } from 'vitest';
import { KernelError } from '../../../src/abi/errno.ts';
import { formatStatus } from '../../../src/abi/status.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { MPOL } from '../../../src/abi/system-call-flags.ts';
import type { HostKernel } from '../../../src/kernel/host-kernel.ts';
import { bootedHost, createTd, mixedHost, useUpTdxMemory } from './mixed-host.ts';

const REQUEST = { purpose: 'test', node: 1 };

function reasonOf(
  kernel: HostKernel,
  order = 0,
  request: { purpose: string; node: number } = REQUEST,
): string {
  try {
    kernel.tdMemory.alloc(order, request);
    return 'not refused';
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    kernel.allocator.audit();
    return `${error.errno} ${error.reason.code}`;
  }
}

describe('trust', () => {
  it('costs one allocation and no look, and the module takes the page where all memory is TDX memory', async () => {
    const host = await bootedHost({ tdAllocation: 'trust' });
    const { requests } = host.kernel.allocator;
    const pfn = host.kernel.tdMemory.alloc(0, REQUEST);
    expect(host.kernel.allocator.requests).toBe(requests + 1);
    expect(createTd(host, pfn)).toBe(STATUS.TDX_SUCCESS);
  });

  it('hands the module a page that it refuses, once other memory is in the allocator', async () => {
    const host = await mixedHost({ hotplug: 'allow', tdAllocation: 'trust' });
    useUpTdxMemory(host.kernel, [1]);
    const pfn = host.kernel.tdMemory.alloc(0, REQUEST);
    expect(host.kernel.tdMemory.isUsable(pfn)).toBe(false);
    expect(formatStatus(createTd(host, pfn))).toMatch(/^TDX_OPERAND_ADDR_RANGE_ERROR/);
  });
});

describe('check', () => {
  it('fails with the page and its node instead, and gives it back', async () => {
    const { kernel } = await mixedHost({ hotplug: 'allow', tdAllocation: 'check' });
    useUpTdxMemory(kernel, [1]);
    const before = kernel.allocator.accounts();
    expect(() => kernel.tdMemory.alloc(0, REQUEST)).toThrow(/page at 0x[0-9a-f]+ on node 1 is no TDX memory/);
    expect(kernel.allocator.accounts()).toEqual(before);
  });

  it('fails although TDX memory is free, and where an equal allocation succeeded', async () => {
    const { kernel } = await mixedHost({ hotplug: 'allow', tdAllocation: 'check' });
    expect(reasonOf(kernel)).toBe('not refused');
    useUpTdxMemory(kernel, [1]);
    expect(reasonOf(kernel)).toBe('ENOMEM page-not-tdx');
    expect(reasonOf(kernel, 0, { ...REQUEST, node: 0 })).toBe('not refused');
  });
});

describe('constrain', () => {
  it('never gives a page that is no TDX memory, whichever node is asked', async () => {
    const { kernel } = await mixedHost({ hotplug: 'separate-node', tdAllocation: 'constrain' });
    for (const node of [0, 1, 2]) {
      for (let i = 0; i < 20; i++) {
        expect(kernel.tdMemory.isUsable(kernel.tdMemory.alloc(0, { ...REQUEST, node }))).toBe(true);
      }
    }
    useUpTdxMemory(kernel);
    expect(reasonOf(kernel)).toBe('ENOMEM no-tdx-memory');
  });

  it('cannot use a zone into which one other DIMM came, though gigabytes of it are TDX memory', async () => {
    const { kernel } = await mixedHost({ hotplug: 'allow', tdAllocation: 'constrain' });
    useUpTdxMemory(kernel, [0]);
    const node1 = kernel.tdxCapability().nodes.find(({ node }) => node === 1)!;
    expect(node1.freeBytes).toBeGreaterThan(4 * 2 ** 30);
    expect(reasonOf(kernel)).toBe('ENOMEM no-tdx-memory');
  });
});

describe('retry', () => {
  it('finds TDX memory as long as some is free', async () => {
    const { kernel } = await mixedHost({ hotplug: 'allow', tdAllocation: 'retry' });
    useUpTdxMemory(kernel, [1]);
    for (const order of [0, 9]) {
      const pfn = kernel.tdMemory.alloc(order, REQUEST);
      expect(kernel.tdMemory.isUsable(pfn, 2 ** order)).toBe(true);
    }
    useUpTdxMemory(kernel, [0]);
    expect(reasonOf(kernel)).toBe('ENOMEM no-tdx-memory');
  });

  it('takes as long as there are wrong pages before the right one', async () => {
    const { kernel, machine } = await mixedHost({ hotplug: 'allow', tdAllocation: 'retry' });
    const { nowNs } = machine.clock;
    kernel.tdMemory.alloc(0, REQUEST);
    expect(machine.clock.nowNs).toBe(nowNs);
    useUpTdxMemory(kernel, [1]);
    kernel.tdMemory.alloc(0, REQUEST);
    expect(kernel.tdMemory.pagesPutAside).toBe(2 ** 18);
    expect(machine.clock.nowNs).toBeGreaterThan(nowNs + 2 ** 18 * 100);
  });
});

describe('the memory policy of control pages', () => {
  const nodesOf = (kernel: HostKernel, count: number): readonly (number | undefined)[] =>
    Array.from({ length: count }, () =>
      kernel.allocator.nodeOf(kernel.tdMemory.alloc(0, { purpose: 'test' })),
    );

  it('binds, interleaves or prefers', async () => {
    const { kernel } = await bootedHost();
    kernel.tdMemory.controlPolicy = { mode: MPOL.BIND, nodes: [1] };
    expect(nodesOf(kernel, 3)).toEqual([1, 1, 1]);
    kernel.tdMemory.controlPolicy = { mode: MPOL.INTERLEAVE, nodes: [0, 1] };
    expect([...nodesOf(kernel, 4)].sort()).toEqual([0, 0, 1, 1]);
    kernel.tdMemory.controlPolicy = { mode: MPOL.PREFERRED, nodes: [1] };
    useUpTdxMemory(kernel, [1]);
    expect(nodesOf(kernel, 2)).toEqual([0, 0]);
    kernel.tdMemory.controlPolicy = { mode: MPOL.BIND, nodes: [1] };
    expect(reasonOf(kernel, 0, { purpose: 'test', node: 0 })).toBe('ENOMEM no-page');
  });
});
