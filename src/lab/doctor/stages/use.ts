/** Stages that starting TDs needs beside TDX itself: processors in every package, and a VMM with its firmware. */
import { packagesWithoutCpu } from '../../../survey/live/cpu-facts.ts';
import type { HostFacts } from '../../../survey/live/host-facts.ts';
import {
  adviceOn,
  type Finding,
  fail,
  howToKnow,
  type Looked,
  look,
  pass,
  unknown,
  valueIn,
} from '../finding.ts';
import type { Stage } from '../stage.ts';

const CPUS = '/sys/devices/system/cpu';

function judgeCpus(facts: HostFacts): Finding {
  const offline = facts.text(`${CPUS}/offline`);
  const online = facts.text(`${CPUS}/online`);
  const cpus = valueIn(facts.cpu)?.online ?? [];
  const packages = new Set(cpus.map((cpu) => cpu.package)).size;
  const looked = [
    look(online, (list) => list || 'none'),
    look(offline, (list) => list || 'none'),
    look(facts.cpu, () => `${cpus.length} CPUs online in ${count(packages, 'package')}`),
  ];
  const down = packagesWithoutCpu(
    cpus,
    valueIn(facts.listedCpus) ?? [],
    valueIn(facts.log)?.evidence.packages,
  );
  if (down !== undefined && down.length > 0) {
    const names = `${down.length === 1 ? 'package' : 'packages'} ${down.join(', ')}`;
    const listed = look(facts.listedCpus, (ids) => `${ids.length} processors, some in ${names}`);
    return fail(`no CPU of ${names} is online`, adviceOn('CPU of a package missing'), [...looked, listed]);
  }
  const all = `every package has an online CPU (${count(packages, 'package')})`;
  if (valueIn(offline) === '') return pass(all, looked);
  if (facts.listedCpus.state === 'read' && down !== undefined) {
    const remark = `CPUs ${valueIn(offline) ?? '?'} are offline; TDs need one per package, so keep the others online.`;
    return pass(all, [...looked, look(facts.listedCpus, (ids) => `${ids.length} processors`)], [remark]);
  }
  return unknown(
    'whether every package has an online CPU',
    howToKnow([offline, facts.listedCpus, facts.log]),
    [...looked, look(facts.listedCpus, (ids) => `${ids.length} processors`)],
  );
}

function count(number: number, thing: string): string {
  return `${number} ${thing}${number === 1 ? '' : 's'}`;
}

const VMMS = [
  '/usr/bin/qemu-system-x86_64',
  '/usr/local/bin/qemu-system-x86_64',
  '/usr/libexec/qemu-kvm',
  '/usr/bin/cloud-hypervisor',
];

/** Firmware images that distributions ship for TDs; the general ones come last. */
const FIRMWARE = [
  '/usr/share/ovmf/OVMF.tdx.fd',
  '/usr/share/ovmf/OVMF.inteltdx.fd',
  '/usr/share/edk2/ovmf/OVMF.inteltdx.fd',
  '/usr/share/edk2/ovmf/OVMF.inteltdx.secboot.fd',
  '/usr/share/qemu/ovmf-x86_64-tdx.bin',
  '/usr/share/ovmf/OVMF.fd',
];

/** Devices through which quotes are made. */
const SGX = ['/dev/sgx_enclave', '/dev/sgx_provision'];

/** First QEMU that starts TDs. */
const FIRST_QEMU = { major: 10, minor: 1 };

function judgeTools(facts: HostFacts): Finding {
  const [vmms, firmware, sgx] = [VMMS, FIRMWARE, SGX].map((paths) => facts.present(paths));
  const { qemu } = facts.probes;
  const looked: Looked[] = [
    {
      where: 'VMM',
      value: [...vmms!, ...(qemu === undefined ? [] : [qemu])].join(', ') || `none of ${VMMS.join(', ')}`,
    },
    { where: 'firmware for TDs', value: firmware!.join(', ') || `none of ${FIRMWARE.join(', ')}` },
    { where: 'SGX, for quotes', value: sgx!.join(', ') || 'none' },
  ];
  const missing = [
    ...(vmms!.length === 0 ? ['a VMM'] : []),
    ...(firmware!.length === 0 ? ['a firmware image for TDs'] : []),
  ];
  if (missing.length > 0) {
    const toKnow =
      'Only the usual places are looked at: install QEMU 10.1 or newer with OVMF, or use your own.';
    return unknown(`whether there is ${missing.join(' and ')}`, toKnow, looked);
  }
  const remarks = [
    ...(isOldQemu(qemu)
      ? ['QEMU itself starts TDs since 10.1; an older one needs the patches of a vendor.']
      : []),
    ...(sgx!.length === 0
      ? ['TDs run, but cannot be attested to others: quotes need SGX, on in BIOS and kernel.']
      : []),
  ];
  return pass('a VMM and firmware for TDs are there', looked, remarks);
}

function isOldQemu(version: string | undefined): boolean {
  const [, major, minor] = /version (\d{1,4})\.(\d{1,4})/.exec(version ?? '') ?? [];
  if (major === undefined) return false;
  return (
    Number(major) < FIRST_QEMU.major ||
    (Number(major) === FIRST_QEMU.major && Number(minor) < FIRST_QEMU.minor)
  );
}

/** @internal */
export const USE_STAGES: readonly Stage[] = [
  { id: 'cpus', title: 'CPUs online', after: [], judge: judgeCpus },
  { id: 'tools', title: 'tools', after: [], judge: judgeTools },
];
