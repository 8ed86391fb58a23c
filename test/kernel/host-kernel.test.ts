import { describe, expect, it } from 'vitest';
import { GIB, MIB } from '../../src/abi/address.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { STATUS } from '../../src/abi/status-codes.ts';
import { formatLogEntry } from '../../src/kernel/log.ts';
import { pamtRange } from '../../src/kernel/pamt-alloc.ts';
import { refusalOf, scriptedHost } from './scripted-host.ts';

const count = (calls: readonly number[], leaf: number): number =>
  calls.filter((call) => call === leaf).length;

describe('initialisation at boot', () => {
  it('goes through every stage and hands the module what it built', async () => {
    const { kernel, module, machine } = scriptedHost();
    await kernel.boot();
    expect(kernel.stages.map(({ name, state }) => `${name} ${state}`)).toEqual(
      kernel.stages.map(({ name }) => `${name} done`),
    );
    expect(kernel.state).toBe('initialized');
    expect(kernel.tdmrs.map(({ start, end, node }) => [start / GIB, end / GIB, node])).toEqual([
      [0, 2, 0],
      [2, 3, 0],
      [4, 8, 0],
      [8, 12, 1],
    ]);
    expect(
      [TDH.sysInit, TDH.sysLpInit, TDH.sysConfig, TDH.sysKeyConfig].map((leaf) => count(module.calls, leaf)),
    ).toEqual([1, 4, 1, 2]);
    expect(module.configR8).toBe(9);
    expect(module.tdmrs.map(({ base, size }) => [Number(base), Number(base + size)])).toEqual(
      kernel.tdmrs.map(({ start, end }) => [start, end]),
    );
    const { pamt, reservedAreas, start } = kernel.tdmrs[2]!;
    expect(module.tdmrs[2]).toMatchObject({
      pamt4kBase: BigInt(pamt.base),
      pamt4kSize: BigInt(pamt.bytes4k),
      pamt2mBase: BigInt(pamt.base + pamt.bytes4k),
      pamt1gBase: BigInt(pamt.base + pamt.bytes4k + pamt.bytes2m),
    });
    expect(module.tdmrs[2]!.reserved.slice(0, reservedAreas.length)).toEqual(
      reservedAreas.map((area) => ({
        offset: BigInt(area.start - start),
        size: BigInt(area.end - area.start),
      })),
    );
    expect(machine.lps.every((lp) => lp.vmxOperation)).toBe(true);
    kernel.allocator.audit();
  });

  it('logs its figures with virtual time', async () => {
    const { kernel, lines } = scriptedHost();
    const printed: string[] = [];
    kernel.log.subscribe((entry) => printed.push(formatLogEntry(entry)));
    await kernel.boot();
    // 11 GiB of TDMRs: 4 MiB + 8 KiB each, and 4 KiB for each of four.
    expect(lines()).toContain(`${11 * 4104 + 4 * 4} KB allocated for PAMT`);
    expect(printed.at(-1)).toMatch(/^\[ +\d+\.\d{6}\] virt\/tdx: TDX-Module initialized$/);
    const times = kernel.log.entries.map(({ timeNs }) => timeNs);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    // The flush before the keys are configured takes time.
    expect(times.at(-1)).toBeGreaterThan(times[0]!);
  });

  it('flushes the caches before it configures keys, so that no stale line lands in a PAMT', async () => {
    const { kernel, machine } = scriptedHost();
    const pamtToBe = 4 * GIB + 16 * MIB;
    for (let at = 4 * GIB; at < pamtToBe; at += MIB) machine.lps[3]!.store(at, new Uint8Array(64));
    await kernel.boot();
    const { start } = pamtRange(kernel.tdmrs[2]!.pamt);
    expect(machine.packages.every(({ cache }) => cache.dirtyPages === 0)).toBe(true);
    for (const pkg of machine.packages) pkg.cache.writeBackAll();
    expect(machine.memory.ownerAt(start)).toBe(9);
  });

  it('ends with ENODEV where no module is loaded', async () => {
    const { kernel, machine } = scriptedHost();
    machine.seam.module = null;
    await kernel.boot();
    const failed = kernel.stages.find(({ state }) => state === 'failed')!;
    expect([failed.name, failed.errno, failed.reason!.code]).toEqual(['cpus', 'ENODEV', 'module-not-loaded']);
    expect(machine.lps.every((lp) => !lp.vmxOperation && !lp.cr4Vmxe)).toBe(true);
  });

  it.each([
    ['XSAVE', 'EINVAL', '1.*', 2, 26],
    ['MOVDIR64B', 'EINVAL', '7.0', 2, 28],
    ['self-snoop', 'ENODEV', '1.*', 3, 27],
  ] as const)('needs %s, else %s', async (feature, errno, leaf, register, bit) => {
    const { kernel, machine, module } = scriptedHost();
    const registers = [...machine.cpuid.get(leaf)!] as [number, number, number, number];
    registers[register] = (registers[register] & ~(1 << bit)) >>> 0;
    machine.cpuid.set(leaf, registers);
    await kernel.boot();
    expect(kernel.stages.find(({ state }) => state === 'failed')).toMatchObject({
      name: 'platform',
      errno,
      reason: { code: 'cpu-feature-missing', data: { feature } },
    });
    expect(module.calls).toEqual([]);
  });

  it('uses Dynamic PAMT where policy, module and address width agree', async () => {
    const bytes = [];
    const dynamic = (1n << 18n) | (1n << 36n);
    for (const [wanted, features0, bits] of [
      [true, dynamic, 52],
      [true, dynamic, 53],
      [true, 1n << 18n, 52],
      [false, dynamic, 52],
    ] as const) {
      const { kernel, module } = scriptedHost(
        { policy: { dynamicPamt: wanted } },
        { physicalAddressBits: bits },
      );
      module.set('features.features0', features0);
      module.set('tdmr.pamtPageBitmapEntryBits', 1n);
      await kernel.boot();
      bytes.push([kernel.tdmrs[1]!.pamt.bytes4k, module.configR8 >> 16]);
    }
    // 5 bits of a 52-bit address carry KeyIDs, which leaves 47; of 53 bits, 48 remain, the most there may be.
    expect(bytes).toEqual([
      [32768, 1],
      [32768, 1],
      [4 * MIB, 0],
      [4 * MIB, 0],
    ]);
  });
});

describe('a platform without TDX', () => {
  it('is told at boot, after whatever detection had to say', async () => {
    for (const [change, expected] of [
      [{ keyIds: null }, ['TDX not supported by the host platform']],
      [
        { keyIds: { mktme: 8, tdx: 1 } },
        [
          'BIOS enabled: private KeyID range [9, 10)',
          'initialization failed: too few private KeyIDs',
          'TDX not supported by the host platform',
        ],
      ],
    ] as const) {
      const { kernel, module, lines } = scriptedHost({}, change);
      await kernel.boot();
      expect(lines()).toEqual(expected);
      expect([kernel.state, module.calls]).toEqual(['uninitialized', []]);
      expect(await refusalOf(kernel.enableTdx())).toBe('ENODEV tdx-unsupported');
    }
  });
});

describe('once', () => {
  it('concurrent callers share the outcome, later ones get it again', async () => {
    const { kernel, module } = scriptedHost({ policy: { enable: 'first-user' } });
    await kernel.boot();
    expect(kernel.state).toBe('uninitialized');
    const [a, b, info] = await Promise.all([kernel.enableTdx(), kernel.enableTdx(), kernel.getTdx()]);
    expect(a).toBe(b);
    expect(info).toBe(kernel.sysinfo);
    expect(await kernel.enableTdx()).toBe(a);
    expect(count(module.calls, TDH.sysConfig)).toBe(1);
  });

  it('after a failure every call is refused with the first reason', async () => {
    const { kernel, module } = scriptedHost({ policy: { enable: 'first-user' } });
    module.refuse.set(TDH.sysConfig, STATUS.TDX_SYS_BUSY);
    await kernel.boot();
    const outcomes = await Promise.all([refusalOf(kernel.enableTdx()), refusalOf(kernel.enableTdx())]);
    expect(outcomes).toEqual(['EIO seamcall-failed', 'EIO seamcall-failed']);
    module.refuse.clear();
    expect(await refusalOf(kernel.enableTdx())).toBe('EINVAL tdx-failed-before');
    await expect(kernel.enableTdx()).rejects.toMatchObject({
      reason: { data: { why: { code: 'seamcall-failed', data: { stage: 'config' } } } },
    });
    expect(await refusalOf(kernel.getTdx())).toBe('ENODEV tdx-not-initialized');
    expect(count(module.calls, TDH.sysConfig)).toBe(1);
  });

  it('TDH.SYS.INIT is called once even where it fails', async () => {
    const { kernel, module } = scriptedHost();
    module.refuse.set(TDH.sysInit, STATUS.TDX_SYS_BUSY);
    await kernel.boot();
    expect(count(module.calls, TDH.sysInit)).toBe(1);
    expect(kernel.stages.find(({ state }) => state === 'failed')!.name).toBe('cpus');
  });
});

describe('when to enable', () => {
  it('opt-in waits for use_tdx=on', async () => {
    const states = [];
    for (const commandLine of ['', 'use_tdx=off', 'use_tdx=on']) {
      const { kernel } = scriptedHost({ policy: { enable: 'opt-in' }, hints: { commandLine } });
      await kernel.boot();
      states.push(kernel.state, await refusalOf(kernel.enableTdx()));
    }
    expect(states).toEqual([
      'uninitialized',
      'ENODEV tdx-not-opted-in',
      'uninitialized',
      'ENODEV tdx-not-opted-in',
      'initialized',
      'not refused',
    ]);
  });

  it('knobs stay put once initialisation has used them', async () => {
    const { kernel } = scriptedHost({ policy: { enable: 'first-user' } });
    await kernel.boot();
    kernel.setPolicy('holes', 'cmr');
    await kernel.enableTdx();
    expect(() => kernel.setPolicy('holes', 'memblock')).toThrow(/holes/);
    kernel.setPolicy('hotplug', 'allow');
    expect(kernel.policy).toMatchObject({ holes: 'cmr', hotplug: 'allow' });
  });
});

describe('after a failure', () => {
  it.each([
    ['leave', 0],
    ['shutdown', 4],
  ] as const)('onError %s calls TDH.SYS.LP.SHUTDOWN on %i CPUs', async (onError, calls) => {
    const { kernel, module, machine } = scriptedHost({ policy: { onError } });
    module.refuse.set(TDH.sysKeyConfig, STATUS.TDX_KEY_GENERATION_FAILED);
    await kernel.boot();
    expect(count(module.calls, TDH.sysLpShutdown)).toBe(calls);
    expect(machine.lps.some((lp) => lp.vmxOperation)).toBe(false);
  });

  it.each([
    ['sapphire-rapids', 0],
    ['granite-rapids', 9],
  ] as const)('PAMT pages on %s go back under KeyID %i', async (cpuModel, owner) => {
    const { kernel, machine } = scriptedHost({}, { cpuModel });
    const pamts: number[] = [];
    machine.seam.fault = (lp) => {
      if (lp.regs.d[0] !== TDH.sysTdmrInit || pamts.length === 0) return undefined;
      return STATUS.TDX_SYS_BUSY;
    };
    machine.seam.observer = {
      before: () => {},
      after: (lp) => {
        if (lp.regs.d[0] !== 0) return;
        for (const { start, keyId } of machine.memory.claimedRanges()) if (keyId === 9) pamts.push(start);
      },
    };
    await kernel.boot();
    expect(kernel.stages.find(({ state }) => state === 'failed')!.name).toBe('tdmr-init');
    expect(pamts.length).toBeGreaterThan(0);
    expect(machine.memory.ownerAt(pamts[0]!)).toBe(owner);
  });
});
