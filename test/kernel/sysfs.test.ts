import { describe, expect, it } from 'vitest';
import { KernelError } from '../../src/abi/errno.ts';
import type { HostKernel } from '../../src/kernel/host-kernel.ts';
import { Sysfs } from '../../src/kernel/sysfs.ts';
import { knobNamed } from '../../src/kernel/sysfs-policy.ts';
import { createHost, type HostOptions } from '../../src/lab/host.ts';
import { MSR } from '../../src/machine/platform.ts';
import { EMBEDDED_HOSTS } from '../../src/survey/embedded/hosts.ts';

const TDX = '/sys/firmware/tdx';

async function booted(
  host: string,
  options: HostOptions = {},
): Promise<{ kernel: HostKernel; sysfs: Sysfs }> {
  const { kernel } = createHost(EMBEDDED_HOSTS.get(host)!.machine, options);
  await kernel.boot();
  return { kernel, sysfs: new Sysfs(kernel) };
}

function errnoOf(action: () => unknown): string | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    if (error instanceof KernelError) return error.errno;
    throw error;
  }
}

describe('sysfs', () => {
  it('tells versions, updates, KeyIDs, CMRs, TDMRs and PAMTs of an initialised host', async () => {
    const { kernel, sysfs } = await booted('spr-256g-2node');
    expect(sysfs.read('/sys/devices/faux/tdx_host/version')).toBe('1.5.05');
    expect(sysfs.read(`${TDX}/seamldr/version`)).toMatch(/^\d+\.\d+\.\d\d$/);
    expect(Number(sysfs.read(`${TDX}/seamldr/remaining_updates`))).toBeGreaterThan(0);
    expect(sysfs.read(`${TDX}/keyids/range`)).toBe('[64, 128)');
    expect(sysfs.read(`${TDX}/keyids/global`)).toBe('64');
    expect(sysfs.read(`${TDX}/keyids/in_use`)).toBe('0');
    kernel.keyIds.alloc();
    expect(sysfs.read(`${TDX}/keyids/in_use`)).toBe('1');
    expect(sysfs.list(`${TDX}/cmrs`)).toEqual(['0', '1', '2']);
    expect(sysfs.read(`${TDX}/cmrs/2/node`)).toBe('1');
    const pamt = sysfs.list(`${TDX}/tdmrs`).map((i) => Number(sysfs.read(`${TDX}/tdmrs/${i}/pamt/bytes`)));
    expect(pamt.reduce((sum, bytes) => sum + bytes, 0)).toBe(1_050_636 * 1024);
  });

  it('tells of P-SEAMLDR beside the version only where the module can be updated at run time', async () => {
    const directory = '/sys/devices/faux/tdx_host';
    const { machine } = EMBEDDED_HOSTS.get('spr-256g-2node')!;
    const offered = [];
    for (const [seamretBug, module] of [
      [true, '1.5.05'],
      [false, '1.5.05'],
      [false, null],
    ] as const) {
      const host = createHost({ ...machine, module });
      const basic = host.machine.msrs.get(MSR.VMX_BASIC)!;
      if (!seamretBug) host.machine.msrs.set(MSR.VMX_BASIC, basic | (1n << 60n));
      await host.kernel.boot();
      offered.push(new Sysfs(host.kernel).list(directory));
    }
    const all = ['version', 'seamldr_version', 'num_remaining_updates'];
    expect(offered).toEqual([['version'], all, ['version']]);
  });

  it('has no files but its own', async () => {
    const { sysfs } = await booted('spr-256g-2node');
    for (const path of ['/sys/nothing', '/sys/constructor', `${TDX}/toString`, '/']) {
      expect(errnoOf(() => sysfs.read(path))).toBe(path === '/' ? 'EISDIR' : 'ENOENT');
    }
    expect(errnoOf(() => sysfs.read(`${TDX}/state/more`))).toBe('ENOTDIR');
    expect(errnoOf(() => sysfs.list(`${TDX}/state`))).toBe('ENOTDIR');
  });

  it('leaves VMX operation as it was when it asks P-SEAMLDR', async () => {
    const { kernel, sysfs } = await booted('spr-256g-2node');
    const { free } = kernel.allocator.accounts()[0]!;
    sysfs.read(`${TDX}/seamldr/version`);
    expect(kernel.cpus.map(({ vmxRefs, lp }) => [vmxRefs, lp.vmxOperation])).toEqual(
      kernel.cpus.map(() => [1, true]),
    );
    expect(kernel.allocator.accounts()[0]!.free).toBe(free);
  });

  it('says for every memory block whether TDs can use it, and why not', async () => {
    const up = await booted('spr-256g-2node');
    const blocks = up.sysfs.list('/sys/devices/system/memory').filter((name) => name.startsWith('memory'));
    expect(blocks.length).toBeGreaterThan(100);
    for (const block of blocks) {
      expect(up.sysfs.read(`/sys/devices/system/memory/${block}/tdx_capable`)).toBe('1');
    }
    const down = await booted('emr-256g-4node');
    expect(down.sysfs.read('/sys/devices/system/memory/memory0/tdx_capable')).toBe('0');
    expect(down.sysfs.read('/sys/devices/system/memory/memory0/tdx_reason')).toMatch(
      /reserved areas exhausted/,
    );
  });

  it('balances the bytes of nodes', async () => {
    const { sysfs } = await booted('spr-256g-2node');
    for (const node of sysfs.list('/sys/devices/system/node')) {
      const value = (name: string): number => Number(sysfs.read(`/sys/devices/system/node/${node}/${name}`));
      expect(value('tdx_capable_bytes') + value('pamt_bytes')).toBeLessThanOrEqual(value('memory_bytes'));
      expect(value('tdx_capable_bytes')).toBeGreaterThan(0);
    }
  });

  it('gives every stage its state, and a failed one its errno and reason', async () => {
    const { sysfs } = await booted('emr-256g-4node');
    const stages = sysfs.list(`${TDX}/stages`);
    const states = stages.map((stage) => sysfs.read(`${TDX}/stages/${stage}/state`));
    const failed = stages[states.indexOf('failed')]!;
    expect(failed).toMatch(/reserved-areas/);
    expect(sysfs.read(`${TDX}/stages/${failed}/errno`)).toBe('ENOSPC');
    expect(sysfs.read(`${TDX}/stages/${failed}/reason_code`)).toBe('reserved-areas-exhausted');
    expect(new Set(states.slice(states.indexOf('failed') + 1))).toEqual(new Set(['skipped']));
    expect(errnoOf(() => sysfs.read('/sys/devices/faux/tdx_host/version'))).toBe('ENXIO');
  });

  it('takes knobs until initialisation has used them, and refuses with a reason', async () => {
    const { kernel, sysfs } = await booted('emr-256g-4node', { policy: { enable: 'first-user' } });
    sysfs.write(`${TDX}/policy/holes`, 'cmr\n');
    expect(kernel.policy.holes).toBe('cmr');
    expect(errnoOf(() => sysfs.write(`${TDX}/policy/holes`, 'maybe'))).toBe('EINVAL');
    await kernel.getTdx();
    expect(sysfs.read(`${TDX}/state`)).toBe('initialized');
    expect(errnoOf(() => sysfs.write(`${TDX}/policy/holes`, 'memblock'))).toBe('EBUSY');
    expect(errnoOf(() => sysfs.write(`${TDX}/state`, 'error'))).toBe('EACCES');
    expect(errnoOf(() => sysfs.read(`${TDX}/nothing`))).toBe('ENOENT');
    expect(errnoOf(() => sysfs.read(`${TDX}/policy`))).toBe('EISDIR');
    expect(errnoOf(() => sysfs.list(`${TDX}/state`))).toBe('ENOTDIR');
    expect(errnoOf(() => sysfs.read(`${TDX}/state/more`))).toBe('ENOTDIR');
  });

  it('reads every file it lists, on a host with TDX and on one without', async () => {
    for (const options of [{}, { module: '1.0' }]) {
      const { sysfs } = await booted('spr-256g-2node', options);
      for (const [path] of sysfs.files()) {
        if (options.module === '1.0' && path.endsWith('/tdx_host/version')) continue;
        expect(sysfs.read(path), path).not.toBe('undefined');
      }
    }
    expect(knobNamed('dynamic-pamt')).toBe('dynamicPamt');
    expect(knobNamed('dynamic_pamt')).toBe('dynamicPamt');
    expect(knobNamed('toString')).toBeUndefined();
  });
});
