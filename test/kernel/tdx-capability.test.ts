import { describe, expect, it } from 'vitest';
import { GIB } from '../../src/abi/address.ts';
import { Sysfs } from '../../src/kernel/sysfs.ts';
import { bootedHost, mixedHost, NEW } from './policy/mixed-host.ts';

describe('TDX capability', () => {
  it('tells of every node, zone and block, with a reason for each that is not capable', async () => {
    const { kernel } = await mixedHost({ hotplug: 'allow' });
    const { nodes, zones, blocks } = kernel.tdxCapability();
    expect(nodes.map(({ node, tdxCapable, why }) => [node, tdxCapable, why?.code])).toEqual([
      [0, true, undefined],
      [1, false, 'partly-tdx-memory'],
    ]);
    expect(zones.map(({ node, zone, tdxCapable }) => [node, zone, tdxCapable])).toEqual([
      [0, 'Normal', true],
      [0, 'DMA32', true],
      [0, 'DMA', true],
      [1, 'Normal', false],
    ]);
    expect(nodes[1]).toMatchObject({ presentBytes: 5 * GIB, tdxBytes: 4 * GIB });
    for (const { start, tdxCapable } of blocks) expect(tdxCapable).toBe(start < NEW.start);
  });

  it('says why nothing is capable while TDX is off', async () => {
    const { kernel } = await bootedHost({}, { keyIds: null });
    const { nodes, zones } = kernel.tdxCapability();
    for (const { tdxCapable, why } of [...nodes, ...zones]) {
      expect([tdxCapable, why!.code]).toEqual([false, 'tdx-not-enabled-by-bios']);
    }
    expect(kernel.tdAdvice()).toMatchObject({ safe: false, why: { code: 'tdx-not-enabled-by-bios' } });
  });
});

describe('advice', () => {
  it('binds to the nodes that are all TDX memory', async () => {
    const { kernel } = await mixedHost({ hotplug: 'allow' });
    expect(kernel.tdAdvice()).toMatchObject({ safe: true, nodes: [0], numactl: 'numactl --membind=0' });
  });

  it('is that there is none where every node is mixed, until allocations look', async () => {
    const { kernel, machine } = await mixedHost({ hotplug: 'allow' });
    const more = { start: 20 * GIB, end: 21 * GIB };
    machine.hotAddMemory({ ...more, node: 0, kind: 'ram', state: 'present' });
    await kernel.onlineMemory(more);
    expect(kernel.tdAdvice()).toMatchObject({ safe: false, why: { code: 'no-pure-node' } });
    kernel.setPolicy('tdAllocation', 'retry');
    expect(kernel.tdAdvice()).toMatchObject({ safe: true, why: { code: 'retried' } });
  });

  it('is in sysfs, where it can be followed', async () => {
    const { kernel } = await mixedHost({ hotplug: 'allow' });
    const sysfs = new Sysfs(kernel);
    const advice = sysfs.read('/sys/firmware/tdx/advice/control_policy');
    expect(advice).toBe('bind:0');
    sysfs.write('/sys/firmware/tdx/control_policy', advice);
    expect(sysfs.read('/sys/firmware/tdx/control_policy')).toBe('bind:0');
    const pfn = kernel.tdMemory.alloc(0, { purpose: 'test', node: 1 });
    expect(kernel.allocator.nodeOf(pfn)).toBe(0);
    expect(() => sysfs.write('/sys/firmware/tdx/control_policy', 'near:0')).toThrow(/bind:0,1/);
    expect(() => sysfs.write('/sys/firmware/tdx/control_policy', 'bind:7')).toThrow(/none of the nodes/);
    const node1 = '/sys/devices/system/node/node1';
    expect(sysfs.read(`${node1}/tdx_reason_code`)).toBe('partly-tdx-memory');
    expect(sysfs.read(`${node1}/zones/Normal/tdx_capable`)).toBe('0');
    expect(sysfs.read(`/sys/devices/system/memory/memory${NEW.start / kernel.hotplug.blockSize}/zones`)).toBe(
      'Normal',
    );
  });
});
