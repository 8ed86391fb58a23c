import { describe, expect, it } from 'vitest';
import { realHost } from './bring-up.ts';
import { refusalOf } from './scripted-host.ts';
import { TINY } from './tiny-machine.ts';

describe('CPUs under TDX', () => {
  it('go offline with clean caches and out of VMX operation', async () => {
    const { kernel, machine } = realHost();
    await kernel.boot();
    machine.lps[0]!.store(0x4_0000_0000, new Uint8Array(64));
    expect(machine.packages[0]!.cache.dirtyPages).toBeGreaterThan(0);
    expect(kernel.cpus[0]!.cacheStateIncoherent).toBe(true);
    await kernel.cpuOffline(0);
    expect(machine.packages[0]!.cache.dirtyPages).toBe(0);
    expect([machine.lps[0]!.vmxOperation, kernel.cpus[0]!.cacheStateIncoherent]).toEqual([false, false]);
  });

  it('come back without a second TDH.SYS.LP.INIT', async () => {
    const { kernel, machine } = realHost();
    await kernel.boot();
    const { calls } = machine.seam;
    await kernel.cpuOffline(3);
    await kernel.cpuOnline(3);
    expect(machine.seam.calls).toBe(calls);
    expect(machine.lps[3]!.vmxOperation).toBe(true);
  });

  it('stay, the last of a package, while a guest holds a KeyID', async () => {
    const { kernel } = realHost();
    await kernel.boot();
    const keyId = kernel.keyIds.alloc();
    await kernel.cpuOffline(2);
    expect(await refusalOf(kernel.cpuOffline(3))).toBe('EBUSY last-cpu-of-package');
    expect(kernel.log.entries.at(-1)).toMatchObject({ level: 'warn', code: 'last-cpu-of-package' });
    expect(kernel.cpus[3]!.online).toBe(true);
    kernel.keyIds.free(keyId);
    await kernel.cpuOffline(3);
    await kernel.cpuOffline(1);
    expect(await refusalOf(kernel.cpuOffline(0))).toBe('EBUSY last-cpu');
  });

  it('that were hot-added cannot join: the module knows its CPUs since it was configured', async () => {
    const slot = { apicId: 2, package: 0, node: 0, present: false };
    const { kernel, machine } = realHost({}, { processors: [...TINY.processors, slot] });
    await kernel.boot();
    machine.hotAddProcessor(2);
    expect(await refusalOf(kernel.cpuOnline(4))).toBe('EIO seamcall-failed');
    expect([kernel.cpus[4]!.online, machine.lps[4]!.vmxOperation]).toEqual([false, false]);
  });

  it('are refused by number when absent or in that state already', async () => {
    const { kernel } = realHost();
    await kernel.boot();
    expect(await refusalOf(kernel.cpuOnline(0))).toBe('EINVAL cpu-state');
    expect(await refusalOf(kernel.cpuOffline(9))).toBe('EINVAL cpu-state');
  });

  it('go up and down once, however many ask at a time', async () => {
    const { kernel, machine } = realHost();
    await kernel.boot();
    const twice = async (change: () => Promise<void>): Promise<readonly string[]> =>
      Promise.all([refusalOf(change()), refusalOf(change())]);
    expect(await twice(() => kernel.cpuOffline(3))).toEqual(['not refused', 'EINVAL cpu-state']);
    expect(await twice(() => kernel.cpuOnline(3))).toEqual(['not refused', 'EINVAL cpu-state']);
    expect(kernel.cpus[3]!.vmxRefs).toBe(1);
    await kernel.cpuOffline(3);
    expect(machine.lps[3]!.vmxOperation).toBe(false);
  });

  it('refuse VMX operation that somebody else started', async () => {
    const { kernel, machine } = realHost();
    machine.lps[1]!.cr4Vmxe = true;
    await kernel.boot();
    expect(kernel.stages.find(({ state }) => state === 'failed')).toMatchObject({
      name: 'cpus',
      errno: 'EBUSY',
      reason: { code: 'vmx-in-use', data: { cpu: 1 } },
    });
    expect(machine.lps[0]!.vmxOperation).toBe(false);
  });
});
