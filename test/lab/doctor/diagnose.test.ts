import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type DoctorReport, diagnose, STAGES, type StageReport } from '../../../src/lab/doctor/diagnose.ts';
import type { StageId } from '../../../src/lab/doctor/stage.ts';
import { collectHost } from '../../../src/survey/live/collection.ts';
import { liveHost } from '../../../src/survey/live/live-host.ts';
import { readMachine } from '../../../src/survey/live/read-machine.ts';
import {
  bootLog,
  CPUS,
  changed,
  cpuinfo,
  type FakeFiles,
  GOOD_HOST,
  GOOD_MSRS,
  GOOD_TDX_LINES,
  writeRoot,
} from '../../support/fake-root.ts';

const folder = mkdtempSync(join(tmpdir(), 'tdxlab-doctor-'));
afterAll(() => rmSync(folder, { recursive: true }));

async function doctor(files: FakeFiles): Promise<DoctorReport> {
  return diagnose(readMachine(writeRoot(files, folder)));
}

function stage(report: DoctorReport, id: StageId): StageReport {
  return report.stages.find((one) => one.id === id)!;
}

/** `processor:pass bios:fail ...`, without the stages that pass. */
function notPassed({ stages }: DoctorReport): string {
  return stages
    .filter(({ status }) => status !== 'pass')
    .map(({ id, status }) => `${id}:${status}`)
    .join(' ');
}

const withMsr = (changes: Partial<Record<keyof typeof GOOD_MSRS, string>>): FakeFiles => ({
  '/msr.json': JSON.stringify({ ...GOOD_MSRS, ...changes }),
});

/** A kernel without TDX in its log: nothing was found, so nothing is up. */
const NOTHING_FOUND: FakeFiles = {
  '/proc/cpuinfo': cpuinfo(),
  '/kernel.log': bootLog([]),
  '/sys/module/kvm_intel/parameters/tdx': 'N\n',
  '/sys/devices/faux/tdx_host/version': undefined,
  '/sys/fs/cgroup/misc.capacity': 'tdx 0\n',
  '/sys/fs/cgroup/misc.current': undefined,
};

describe('doctor on a host that is ready', () => {
  it('passes every stage and says what it has', async () => {
    const report = await doctor(GOOD_HOST);
    expect(notPassed(report)).toBe('');
    expect(report.stages.map(({ id }) => id)).toEqual(STAGES.map(({ id }) => id));
    expect(report.verdict).toBe('ready');
    expect(report.says).toBe('This host is ready for TDs: TDX module 1.5.25, 63 TDs at once, 2 in use.');
    expect(stage(report, 'bios').says).toContain('[64, 128)');
    expect(report.plan).toMatchObject({ ok: true, sources: ['kernel.log', 'sys/firmware/acpi/tables/SRAT'] });
  });

  it('shows for every stage what was looked at', async () => {
    const report = await doctor(GOOD_HOST);
    expect(report.stages.filter(({ looked }) => looked.length === 0)).toEqual([]);
    expect(stage(report, 'kvm').looked).toContainEqual({
      where: '/sys/module/kvm_intel/parameters/tdx',
      value: 'Y',
    });
  });

  it('is told ready by what every user may read: no registers, log or tables', async () => {
    const report = await doctor(
      changed({
        '/msr.json': undefined,
        '/kernel.log': undefined,
        '/probes.json': undefined,
        '/boot/config-7.2.0': undefined,
        '/sys/firmware/acpi/tables/SRAT': undefined,
        '/sys/devices/faux/tdx_host/version': undefined,
      }),
    );
    expect(report.verdict).toBe('ready');
    expect(notPassed(report)).toBe('');
    expect(stage(report, 'module').remarks).toHaveLength(1);
    expect(report.plan).toBeUndefined();
  });

  it('goes on without a misc controller, and says what that costs', async () => {
    const report = await doctor(
      changed({ '/sys/fs/cgroup/misc.capacity': undefined, '/sys/fs/cgroup/misc.current': undefined }),
    );
    expect(report.verdict).toBe('ready');
    expect(stage(report, 'keyids')).toMatchObject({ status: 'pass', says: '63 TDs at once' });
    expect(stage(report, 'keyids').remarks![0]).toContain('CONFIG_CGROUP_MISC');
  });
});

describe('doctor on a host that is not ready', () => {
  it.each([
    ['IA32_TME_ACTIVATE', '0x0', /TME\) is off/, /Turn TME on/],
    ['IA32_TME_ACTIVATE', '0x3', /one key only/, /Turn TME-MT/],
    ['IA32_MKTME_KEYID_PARTITIONING', '0x3f', /no KeyIDs/, /key split/],
    ['IA32_MKTME_KEYID_PARTITIONING', '0x10000003e', /single KeyID/, /more KeyIDs/],
    ['IA32_MTRRCAP', '0x4d0a', /no SEAM range registers/, /microcode/],
    ['IA32_SEAMRR_PHYS_BASE', '0x0', /no memory range aside/, /SEAM loader/],
    ['IA32_SEAMRR_PHYS_MASK', '0x400', /not enabled/, /SEAM loader/],
    ['IA32_FEATURE_CONTROL', '0x1', /VMX is off/, /VT-x/],
  ] as const)('blames the BIOS for %s = %s', async (msr, value, says, remedy) => {
    const report = await doctor(changed({ ...NOTHING_FOUND, ...withMsr({ [msr]: value }) }));
    const bios = stage(report, 'bios');
    expect(bios.status).toBe('fail');
    expect(bios.says).toMatch(says);
    expect(bios.remedy).toMatch(remedy);
    expect(bios.looked.at(-1)!.where).toContain(msr);
    expect(report.verdict).toBe('not-ready');
    expect(notPassed(report)).toBe(
      'bios:fail detection:not-applicable module:not-applicable initialisation:not-applicable ' +
        'memory:not-applicable kvm:not-applicable keyids:not-applicable',
    );
    expect(stage(report, 'kvm').says).toBe('waits for: BIOS');
  });

  it('plans with the memory that the log shows, and counts no TDs on KeyIDs that were not shown', async () => {
    const found = await doctor(GOOD_HOST);
    expect(found.plan!.says).toBe('With this memory TDX initialises: 1 GiB for PAMT, 63 TDs at once.');
    const nothing = await doctor(changed(NOTHING_FOUND));
    expect(nothing.plan!.says).toBe('With this memory TDX initialises: 1 GiB for PAMT.');
  });

  it('blames the BIOS without registers only where the log is whole', async () => {
    const hidden = { ...NOTHING_FOUND, '/msr.json': undefined };
    const whole = await doctor(changed(hidden));
    expect(stage(whole, 'bios')).toMatchObject({
      status: 'fail',
      says: 'the kernel found no private KeyIDs',
    });
    const cut = bootLog([]).split('\n').slice(1).join('\n');
    const report = await doctor(changed({ ...hidden, '/kernel.log': cut }));
    expect(stage(report, 'bios')).toMatchObject({ status: 'unknown' });
    expect(stage(report, 'bios').toKnow).toContain('root');
    expect(stage(report, 'detection').status).toBe('unknown');
  });

  it('finds nohibernate missing', async () => {
    const lines = [
      'virt/tdx: BIOS enabled: private KeyID range [64, 128)',
      'virt/tdx: initialization failed: Hibernation support is enabled',
    ];
    const report = await doctor(
      changed({
        ...NOTHING_FOUND,
        '/proc/cmdline': 'kvm_intel.tdx=1\n',
        '/sys/power/disk': '[platform] shutdown reboot suspend\n',
        '/kernel.log': bootLog(lines, 'kvm_intel.tdx=1'),
      }),
    );
    expect(stage(report, 'command-line')).toMatchObject({
      status: 'fail',
      remedy: 'Boot with `nohibernate`.',
    });
    expect(stage(report, 'detection')).toMatchObject({ status: 'fail', remedy: 'Boot with `nohibernate`.' });
    expect(stage(report, 'module').says).toMatch(/^waits for: /);
  });

  it('finds processors left out on the command line', async () => {
    const failed = [
      ...GOOD_TDX_LINES.slice(0, 3),
      'virt/tdx: SEAMCALL (0x2d) failed: 0xc000051000000000',
      'virt/tdx: TDX-Module initialization failed (-5)',
    ];
    const options = 'nohibernate kvm_intel.tdx=1 maxcpus=4';
    const host = changed({
      ...NOTHING_FOUND,
      '/proc/cmdline': options,
      '/kernel.log': bootLog(failed, options),
    });
    expect(stage(await doctor(host), 'command-line')).toMatchObject({
      status: 'fail',
      remedy: 'Boot without maxcpus=4, or turn the processors off in the BIOS instead.',
    });
    const harmless = await doctor({ ...host, '/proc/cmdline': 'nohibernate kvm_intel.tdx=1 maxcpus=8' });
    expect(stage(harmless, 'command-line').status).toBe('pass');
  });

  it('knows a module that is too old by the SEAMCALL that it refuses', async () => {
    const lines = [
      ...GOOD_TDX_LINES.slice(0, 2),
      'virt/tdx: SEAMCALL (0x22) failed: 0xc000050500000000',
      'virt/tdx: module initialization failed (-5)',
    ];
    const report = await doctor(changed({ ...NOTHING_FOUND, '/kernel.log': bootLog(lines) }));
    expect(stage(report, 'module')).toMatchObject({
      status: 'fail',
      says: 'the TDX module is too old for this kernel',
    });
    expect(stage(report, 'module').remedy).toMatch(/1\.5/);
    expect(report.says).toContain('too old');
  });

  it('finds the module missing', async () => {
    const lines = [...GOOD_TDX_LINES.slice(0, 2), 'virt/tdx: module not loaded'];
    const report = await doctor(
      changed({ ...NOTHING_FOUND, '/kernel.log': bootLog(lines), '/boot/efi/EFI/TDX/TDX-SEAM.so': '' }),
    );
    expect(stage(report, 'module')).toMatchObject({
      status: 'fail',
      says: 'the firmware loaded no TDX module',
    });
    expect(stage(report, 'module').looked.at(-1)).toMatchObject({ value: 'there is one' });
  });

  it('explains a bring-up that failed with -28, once', async () => {
    const lines = [
      ...GOOD_TDX_LINES.slice(0, 3),
      'virt/tdx: initialization failed: TDMR [0x0, 0x80000000): reserved areas exhausted.',
      'virt/tdx: module initialization failed (-28)',
    ];
    const report = await doctor(changed({ ...NOTHING_FOUND, '/kernel.log': bootLog(lines) }));
    const { says, cause, remedy } = stage(report, 'initialisation');
    expect(says).toBe('the module did not initialise (-28)');
    expect(cause).toContain('hole');
    expect(remedy).toContain('CMRs');
    expect(stage(report, 'kvm').says).toBe('waits for: initialisation');
    expect(report.says).toBe('This machine is not ready for TDs: the module did not initialise (-28).');
  });

  it('finds kvm_intel.tdx off, asked for nowhere, whatever else fails', async () => {
    const off: FakeFiles = {
      '/sys/module/kvm_intel/parameters/tdx': 'N\n',
      '/proc/cmdline': 'nohibernate\n',
      '/sys/fs/cgroup/misc.capacity': 'tdx 0\n',
    };
    const report = await doctor(changed({ ...off }));
    expect(notPassed(report)).toBe('kvm:fail keyids:not-applicable');
    expect(stage(report, 'kvm').remedy).toContain('kvm_intel.tdx=1');
    const broken = await doctor(
      changed({ ...NOTHING_FOUND, ...off, ...withMsr({ IA32_TME_ACTIVATE: '0x0' }) }),
    );
    expect(stage(broken, 'kvm').status).toBe('fail');
    expect(broken.says).toContain('(and 1 more)');
  });

  it('finds the parameter that keeps KVM from TDX, and takes tdx=1 from modprobe too', async () => {
    const report = await doctor(
      changed({
        '/sys/module/kvm_intel/parameters/tdx': 'N\n',
        '/sys/module/kvm_intel/parameters/ept': 'N\n',
        '/proc/cmdline': 'nohibernate\n',
        '/etc/modprobe.d/tdx.conf': '# secret\noptions kvm-intel tdx=1 nested=0\n',
      }),
    );
    expect(stage(report, 'kvm').says).toBe('KVM runs without EPT, which TDX needs');
    expect(stage(report, 'kvm').looked).toContainEqual({
      where: '/etc/modprobe.d/tdx.conf',
      value: 'options kvm-intel tdx=1 nested=0',
    });
  });

  it("gives KVM's own reason from the log, though nobody is seen to have asked", async () => {
    const lines = [...GOOD_TDX_LINES, 'kvm_intel: TDX requires APICv'];
    const report = await doctor(
      changed({
        '/sys/module/kvm_intel/parameters/tdx': 'N\n',
        '/proc/cmdline': 'nohibernate\n',
        '/kernel.log': bootLog(lines, 'nohibernate'),
      }),
    );
    expect(stage(report, 'kvm')).toMatchObject({
      status: 'fail',
      says: 'kvm_intel turned TDX off when it loaded',
      remedy: 'Remove the parameter and load kvm_intel again with tdx=1.',
    });
  });

  it('finds a KVM without TDX, one that is not loaded, and a device that is missing', async () => {
    const parameter = { '/sys/module/kvm_intel/parameters/tdx': undefined };
    const old = await doctor(changed(parameter));
    expect(stage(old, 'kvm').says).toBe('this KVM has no TDX');
    const parameters = Object.keys(GOOD_HOST).filter((path) => path.startsWith('/sys/module/kvm_intel'));
    const unloaded = await doctor(changed(Object.fromEntries(parameters.map((path) => [path, undefined]))));
    expect(stage(unloaded, 'kvm').says).toBe('kvm_intel is not loaded');
    const container = await doctor(changed({ '/dev/kvm': undefined }));
    expect(stage(container, 'kvm').says).toBe('there is no /dev/kvm');
  });

  it('believes KVM when it offers no TDs', async () => {
    const report = await doctor(changed({ '/probes.json': '{"vmTypes": 3, "askedBy": "perl"}' }));
    expect(stage(report, 'kvm')).toMatchObject({ status: 'fail', says: 'KVM offers no VMs of type TDX' });
  });

  it('finds a kernel built without', async () => {
    const report = await doctor(
      changed({
        ...NOTHING_FOUND,
        '/boot/config-7.2.0': '# CONFIG_INTEL_TDX_HOST is not set\nCONFIG_KVM_INTEL=m\n',
      }),
    );
    expect(stage(report, 'kernel')).toMatchObject({
      status: 'fail',
      says: 'built without CONFIG_INTEL_TDX_HOST',
    });
    expect(stage(report, 'kernel').remedy).toContain('CONFIG_CONTIG_ALLOC');
  });

  it('finds all KeyIDs in use', async () => {
    const report = await doctor(changed({ '/sys/fs/cgroup/misc.current': 'tdx 63\n' }));
    expect(stage(report, 'keyids')).toMatchObject({ status: 'fail', says: 'all 63 KeyIDs are in use' });
  });

  it('finds a package without an online CPU, and tells it from one that has some', async () => {
    const lists = (online: string, offline: string): FakeFiles => ({
      '/sys/devices/system/cpu/online': online,
      '/sys/devices/system/cpu/offline': offline,
    });
    const flags = { flags: 'tdx_host_platform' };
    const down = { '/proc/cpuinfo': cpuinfo(CPUS.slice(0, 4), flags), ...lists('0-3', '4-7') };
    const report = await doctor(changed(down));
    expect(stage(report, 'cpus')).toMatchObject({ status: 'fail', says: 'no CPU of package 1 is online' });
    const some = await doctor(
      changed({ '/proc/cpuinfo': cpuinfo(CPUS.slice(0, 5), flags), ...lists('0-4', '5-7') }),
    );
    expect(stage(some, 'cpus')).toMatchObject({ status: 'pass' });
    expect(stage(some, 'cpus').remarks![0]).toContain('5-7');
    const hidden = await doctor(changed({ ...down, '/sys/firmware/acpi/tables/SRAT': undefined }));
    expect(stage(hidden, 'cpus')).toMatchObject({ status: 'unknown' });
  });
});

describe('doctor on a machine that is no TDX host', () => {
  const only = async (text: string, more: FakeFiles = {}): Promise<DoctorReport> =>
    doctor({ '/proc/cpuinfo': text, '/proc/sys/kernel/osrelease': '6.18.0', ...more });

  it('says in one sentence what it is, and asks about no stage', async () => {
    const amd = { vendor: 'AuthenticAMD', family: 25, model: 17, name: 'AMD EPYC' };
    const vm = await only(cpuinfo(CPUS, { ...amd, flags: 'hypervisor' }));
    expect(vm.verdict).toBe('no-tdx');
    expect(vm.says).toBe(
      'This machine cannot host TDs: it is a virtual machine on an AMD processor (AMD EPYC), and TDX needs the hardware itself.',
    );
    expect(new Set(vm.stages.map(({ status }) => status))).toEqual(new Set(['not-applicable']));
    const metal = await only(cpuinfo(CPUS, amd));
    expect(metal.says).toContain('an AMD processor');
    const old = await only(cpuinfo(CPUS, { model: 85 }));
    expect(old.says).toContain('family 6, model 85, is none of those with TDX');
    const arm = await only('processor\t: 0\nBogoMIPS\t: 50.00\n');
    expect(arm.says).toContain('no x86 processor');
  });

  it('takes a processor it does not know for a newer one when TDX shows', async () => {
    const report = await doctor(
      changed({ '/proc/cpuinfo': cpuinfo(CPUS, { model: 221, flags: 'tdx_host_platform' }) }),
    );
    expect(report.verdict).toBe('ready');
    expect(stage(report, 'processor').says).toContain('not known here');
  });

  it('knows a TD, by its flag or by its log', async () => {
    const flagged = await only(cpuinfo(CPUS, { flags: 'hypervisor tdx_guest' }), {
      '/sys/firmware/acpi/tables/CCEL': 'CCEL',
    });
    expect(flagged.verdict).toBe('td');
    expect(flagged.says).toBe('This machine is itself a TD, with an event log (CCEL); a TD cannot host TDs.');
    const logged = await only(cpuinfo(CPUS, { flags: 'hypervisor' }), {
      '/kernel.log': '[    0.000000] tdx: Guest detected\n',
    });
    expect(logged.says).toContain('itself a TD, without an event log');
  });

  it.each([
    ['darwin', 'macOS'],
    ['win32', 'Windows'],
  ])('says so on %s', async (platform, name) => {
    const report = await diagnose(collectHost(liveHost(platform)));
    expect(report.verdict).toBe('no-tdx');
    expect(report.says).toContain(`runs ${name}`);
  });

  it('cannot tell anything of an empty root', async () => {
    const report = await doctor({});
    expect(report.verdict).toBe('cannot-tell');
    expect(report.says).toContain('/proc/cpuinfo');
    expect(
      report.stages.filter(({ status, toKnow }) => status === 'unknown' && toKnow !== undefined),
    ).toHaveLength(STAGES.length);
  });
});
