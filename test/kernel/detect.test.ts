import { describe, expect, it } from 'vitest';
import { MSR } from '../../src/machine/platform.ts';
import { scriptedHost } from './scripted-host.ts';

/** So that the log ends with what detection printed. */
const WITHOUT_ENABLING = { policy: { enable: 'first-user' } } as const;

describe('early detection', () => {
  it('splits the private KeyIDs into the global one and the guests', async () => {
    const { kernel, lines } = scriptedHost();
    await kernel.boot();
    expect(kernel.detection).toMatchObject({
      keyIds: { start: 9, count: 8 },
      globalKeyId: 9,
      guestKeyIds: { start: 10, count: 7 },
      s3Disabled: true,
    });
    expect(lines()[0]).toBe('BIOS enabled: private KeyID range [9, 17)');
    expect(lines()[1]).toMatch(/ACPI S3/);
    expect(kernel.keyIds.capacity).toBe(7);
  });

  it.each([
    ['no partitioning register', { keyIds: null }],
    ['no private KeyIDs', { keyIds: { mktme: 63, tdx: 0 } }],
  ])('stays silent with %s', async (_, change) => {
    const { kernel, lines } = scriptedHost(WITHOUT_ENABLING, change);
    await kernel.boot();
    expect(lines()).toEqual([]);
    expect(kernel.stages[0]).toMatchObject({
      state: 'failed',
      errno: 'ENODEV',
      reason: { code: 'tdx-not-enabled-by-bios' },
    });
    expect(kernel.stages.slice(1).every(({ state }) => state === 'skipped')).toBe(true);
    expect(kernel.state).toBe('uninitialized');
  });

  it('refuses a single private KeyID', async () => {
    const { kernel, lines } = scriptedHost(WITHOUT_ENABLING, { keyIds: { mktme: 8, tdx: 1 } });
    await kernel.boot();
    expect(lines()).toEqual([
      'BIOS enabled: private KeyID range [9, 10)',
      'initialization failed: too few private KeyIDs',
    ]);
    expect(kernel.stages[0]).toMatchObject({ state: 'failed', reason: { code: 'too-few-keyids' } });
  });

  it('makes do with two', async () => {
    const { kernel } = scriptedHost({}, { keyIds: { mktme: 8, tdx: 2 } });
    await kernel.boot();
    expect(kernel.detection).toMatchObject({ globalKeyId: 9, guestKeyIds: { start: 10, count: 1 } });
  });

  it('refuses hibernation unless it is off for the whole boot', async () => {
    const states = [];
    for (const hints of [
      { hibernationDisabled: false },
      { hibernationDisabled: false, commandLine: 'ro quiet nohibernate' },
      { hibernationDisabled: true },
      {},
    ]) {
      const { kernel } = scriptedHost({ hints });
      await kernel.boot();
      states.push(kernel.stages[0]!.reason?.code ?? kernel.stages[0]!.state);
    }
    expect(states).toEqual(['hibernation', 'done', 'done', 'done']);
  });

  it('ends where the memory notifier cannot be registered', async () => {
    const { kernel, lines } = scriptedHost(WITHOUT_ENABLING);
    kernel.memoryNotifiers.fault = 'ENOMEM';
    await kernel.boot();
    expect(kernel.stages[0]).toMatchObject({
      state: 'failed',
      errno: 'ENOMEM',
      reason: { code: 'memory-notifier' },
    });
    expect(lines().at(-1)).toMatch(/\(-12\)/);
  });

  it('leaves S3 alone in a kernel without suspend', async () => {
    const { kernel, lines } = scriptedHost({ hints: { acpiSuspend: false } });
    await kernel.boot();
    expect(kernel.detection!.s3Disabled).toBe(false);
    expect(lines().join()).not.toMatch(/S3/);
  });

  it('knows the errata by CPU model and by VMX_BASIC bit 60', async () => {
    const old = scriptedHost();
    await old.kernel.boot();
    expect(old.kernel.detection!.errata.partialWriteMce).toBe(true);
    const { kernel, machine } = scriptedHost({}, { cpuModel: 'granite-rapids' });
    machine.msrs.set(MSR.VMX_BASIC, machine.msrs.get(MSR.VMX_BASIC)! | (1n << 60n));
    await kernel.boot();
    expect(kernel.detection!.errata).toEqual({ partialWriteMce: false, seamretInvalidatesVmcs: false });
  });
});
