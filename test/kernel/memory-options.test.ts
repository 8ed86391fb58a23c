import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_4K } from '../../src/abi/address.ts';
import { HostKernel } from '../../src/kernel/host-kernel.ts';
import { kernelConfig } from '../../src/kernel/kernel-config.ts';
import { parseBytes } from '../../src/kernel/memory-options.ts';
import { Machine } from '../../src/machine/machine.ts';
import { realHost } from './bring-up.ts';
import { TINY } from './tiny-machine.ts';

const booted = async (commandLine: string) => {
  const host = realHost({ hints: { commandLine } });
  await host.kernel.boot();
  return host.kernel;
};

describe('memmap=', () => {
  it('reads sizes and kinds, several at a time, and leaves out what it cannot read', () => {
    expect(['4096', '0x1000', '4K', '2g', 'much', ''].map(parseBytes)).toEqual([
      4096,
      4096,
      4096,
      2 * GIB,
      undefined,
      undefined,
    ]);
    const { memmap } = kernelConfig({ commandLine: 'memmap=1G$5G,64M!0x180000000 memmap=exactmap' });
    expect(memmap).toEqual([
      { start: 5 * GIB, end: 6 * GIB, type: 'reserved' },
      { start: 6 * GIB, end: 6 * GIB + 64 * MIB, type: 'legacy-pmem' },
    ]);
  });

  it('takes memory away from TDs, without harm', async () => {
    const kernel = await booted('memmap=1G$5G');
    expect(kernel.state).toBe('initialized');
    expect(kernel.tdMemory.isUsable((5 * GIB) / PAGE_4K)).toBe(false);
    expect(kernel.allocator.nodeOf((5 * GIB) / PAGE_4K)).toBeUndefined();
  });

  it('stops TDX where it invents memory outside the CMRs', async () => {
    const kernel = await booted('memmap=1G@16G');
    expect(kernel.stages.find(({ state }) => state === 'failed')).toMatchObject({ name: 'config' });
  });
});

describe('kernelcore=', () => {
  it('leaves what lies above each node’s share to movable pages', async () => {
    const kernel = await booted('kernelcore=6G');
    const movable = kernel.allocator.zones().filter(({ name }) => name === 'Movable');
    expect(movable.map(({ node }) => node)).toEqual([0, 1]);
    const bytes = movable.reduce((sum, { presentPages }) => sum + presentPages * PAGE_4K, 0);
    expect(Math.abs(bytes - 5 * GIB)).toBeLessThan(256 * MIB);
    expect(kernel.state).toBe('initialized');
    kernel.allocator.audit();
  });
});

describe('distances of nodes', () => {
  it('decide where an allocation falls back to', () => {
    const nodes = [0, 1, 2, 3];
    const srat = nodes.map((node) => ({
      start: node * 4 * GIB,
      end: (node + 1) * 4 * GIB,
      ...{ node, proximityDomain: node, hotplug: false, nonVolatile: false },
    }));
    const e820 = [{ start: MIB, end: 16 * GIB, type: 'usable' as const }];
    const memory = srat.map(({ start, end, node }) => ({
      start,
      end,
      node,
      kind: 'ram' as const,
      state: 'present' as const,
    }));
    const slit = [
      [10, 31, 21, 31],
      [31, 10, 31, 21],
      [21, 31, 10, 31],
      [31, 21, 31, 10],
    ];
    const { allocator } = new HostKernel(new Machine({ ...TINY, srat, e820, memory, slit }));
    const order = (node: number) => [...new Set(allocator.fallbackZones(node).map((zone) => zone.node))];
    expect([order(0), order(1)]).toEqual([
      [0, 2, 1, 3],
      [1, 3, 2, 0],
    ]);
  });
});
