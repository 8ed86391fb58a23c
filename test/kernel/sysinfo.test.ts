import { describe, expect, it } from 'vitest';
import { TDH } from '../../src/abi/leaves.ts';
import { STATUS } from '../../src/abi/status-codes.ts';
import { listCmrs } from '../../src/kernel/sysinfo.ts';
import { ARRAY_FIELDS, isWide, SCALAR_FIELDS } from '../../src/kernel/sysinfo-fields.ts';
import { scriptedHost } from './scripted-host.ts';

const CMRS = [
  { start: 0x10_0000, end: 0x8000_0000 },
  { start: 0x1_0000_0000, end: 0x3_0000_0000 },
];

describe('TdxSysinfo', () => {
  it('holds what the module reports, frozen to the last array', async () => {
    const { kernel, module, lines } = scriptedHost();
    module.set('tdConf.numCpuidConfig', 2n);
    const [leaves, values] = ARRAY_FIELDS.map(({ id }) => id) as [bigint, bigint];
    for (let i = 0n; i < 2n; i++) module.fields.set(leaves + i, 0x10n + i);
    for (let i = 0n; i < 4n; i++) module.fields.set(values + i, 0x100n + i);
    await kernel.boot();
    const info = kernel.sysinfo!;
    expect(info.version).toMatchObject({ major: 1, minor: 5, update: 7, buildNumber: 698, vendorId: 0x8086 });
    expect(info.tdConf.cpuidConfigLeaves).toEqual([0x10n, 0x11n]);
    expect(info.tdConf.cpuidConfigValues).toEqual([0x100n, 0x101n, 0x102n, 0x103n]);
    expect(info.cmrs).toEqual(kernel.machine.cmrs);
    expect(() => Object.assign(info.version, { major: 2 })).toThrow(TypeError);
    expect(() => (info.tdConf.cpuidConfigLeaves as bigint[]).push(1n)).toThrow(TypeError);
    expect(lines()).toContain('Module version: 1.5.07');
    expect(lines()).toContain('CMR: [0x100000, 0x80000000)');
  });

  it('reads a field behind a feature bit only where the bit is set', async () => {
    const guarded = SCALAR_FIELDS.filter(({ feature }) => feature !== undefined);
    expect(guarded.length).toBeGreaterThan(0);
    const without = scriptedHost();
    for (const { id } of guarded) without.module.fields.delete(id);
    await without.kernel.boot();
    expect(without.kernel.state).toBe('initialized');
    expect(without.kernel.sysinfo!.handoff).toEqual({});
    const having = scriptedHost();
    having.module.set('features.features0', (1n << 18n) | 0b10n);
    having.module.set('handoff.moduleHv', 3n);
    await having.kernel.boot();
    expect(having.kernel.sysinfo!.handoff).toEqual({ moduleHv: 3 });
  });

  it('is not made where one mandatory field is missing', async () => {
    const { kernel, module } = scriptedHost();
    module.fields.delete(SCALAR_FIELDS.find(({ path }) => path === 'tdConf.maxVcpusPerTd')!.id);
    await kernel.boot();
    expect(kernel.stages.find(({ name }) => name === 'sysinfo')).toMatchObject({
      state: 'failed',
      errno: 'EIO',
    });
    expect(kernel.sysinfo).toBeNull();
  });

  it('is not made for a TDX 1.0 module, which has no TDH.SYS.RD', async () => {
    const { kernel, module, lines } = scriptedHost();
    module.refuse.set(TDH.sysRd, STATUS.TDX_SYS_NOT_READY);
    await kernel.boot();
    expect(lines().join('\n')).toMatch(/SEAMCALL \(0x22\) failed: 0xc000050500000000/);
    expect(lines().at(-1)).toBe('TDX-Module initialization failed (-5)');
  });

  it('refuses more CPUID entries than the kernel has room for', async () => {
    const { kernel, module } = scriptedHost();
    module.set('tdConf.numCpuidConfig', 129n);
    await kernel.boot();
    expect(kernel.stages.find(({ state }) => state === 'failed')).toMatchObject({
      name: 'sysinfo',
      errno: 'EINVAL',
      reason: { code: 'sysinfo-table-size' },
    });
  });

  it('is known although a module that clobbers RBP is refused', async () => {
    const { kernel, module, lines } = scriptedHost();
    module.set('features.features0', 0n);
    await kernel.boot();
    expect(kernel.stages.find(({ state }) => state === 'failed')).toMatchObject({
      name: 'features',
      errno: 'EINVAL',
      reason: { code: 'no-rbp-mod' },
    });
    expect(kernel.sysinfo!.version.update).toBe(7);
    expect(lines().at(-1)).toBe('TDX-Module initialization failed (-22)');
  });

  it('has numbers up to 32 bits and bigints above', async () => {
    const { kernel } = scriptedHost();
    await kernel.boot();
    const info = kernel.sysinfo! as unknown as Record<string, Record<string, unknown>>;
    for (const { id, path, feature } of SCALAR_FIELDS) {
      if (feature !== undefined) continue;
      const [section, member] = path.split('.') as [string, string];
      expect([path, typeof info[section]![member]]).toEqual([path, isWide(id) ? 'bigint' : 'number']);
    }
  });
});

describe('CMRs with empty entries', () => {
  it('end the list: what a module left behind them does not count', () => {
    const raw = { count: 3, bases: [0x1000n, 0n, 0x9000n], sizes: [0x1000n, 0n, 0x1000n] };
    expect(listCmrs(raw, false)).toEqual([{ start: 0x1000, end: 0x2000 }]);
    expect(() => listCmrs(raw, true)).toThrow(/CMR 1 is empty/);
  });

  it('are cut off by default', async () => {
    const { kernel, module } = scriptedHost();
    module.setCmrs(CMRS, 32);
    await kernel.boot();
    expect(kernel.sysinfo!.cmr.count).toBe(32);
    expect(kernel.sysinfo!.cmrs).toEqual(CMRS);
    expect(kernel.state).toBe('initialized');
  });

  it('fail initialisation when the count is trusted', async () => {
    const { kernel, module } = scriptedHost({ policy: { trustCmrCount: true } });
    module.setCmrs(CMRS, 32);
    await kernel.boot();
    expect(kernel.stages.find(({ state }) => state === 'failed')).toMatchObject({
      name: 'sysinfo',
      errno: 'EINVAL',
      reason: { code: 'empty-cmr', data: { count: 32, empty: 2 } },
    });
  });
});
