/** Builds roots of machines as directories, for the doctor: a TDX host that is ready, and changes to it. */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { memoryStructure, sratTable, x2apicStructure } from '../survey/srat-bytes.ts';

/** Files by their absolute paths; undefined takes a file away. */
export type FakeFiles = Readonly<Record<string, string | Uint8Array | undefined>>;

export interface FakeCpu {
  readonly apicId: number;
  readonly package: number;
}

/** Two packages of four; package 1 has APIC ids from 128 on. */
export const CPUS: readonly FakeCpu[] = Array.from({ length: 8 }, (_, i) => {
  return { apicId: Math.floor(i / 4) * 128 + (i % 4), package: Math.floor(i / 4) };
});

export function cpuinfo(
  cpus: readonly FakeCpu[] = CPUS,
  {
    vendor = 'GenuineIntel',
    family = 6,
    model = 143,
    name = 'Intel(R) Xeon(R) Platinum 8480C',
    flags = '',
  } = {},
): string {
  return cpus
    .map(({ apicId, package: id }, cpu) =>
      [
        `processor\t: ${cpu}`,
        `vendor_id\t: ${vendor}`,
        `cpu family\t: ${family}`,
        `model\t\t: ${model}`,
        `model name\t: ${name}`,
        `physical id\t: ${id}`,
        `apicid\t\t: ${apicId}`,
        `flags\t\t: fpu vme xsave movdir64b ss ${flags}`.trimEnd(),
        'bugs\t\t: spectre_v1 tdx_pw_mce',
        'address sizes\t: 46 bits physical, 57 bits virtual',
      ].join('\n'),
    )
    .join('\n\n');
}

/** A kernel log of its boot; `tdx` are the lines of TDX. */
export function bootLog(tdx: readonly string[], commandLine = 'nohibernate kvm_intel.tdx=1'): string {
  return [
    '[    0.000000] Linux version 7.2.0 (builder@secret-builder) #1 SMP',
    `[    0.000000] Command line: BOOT_IMAGE=/vmlinuz root=UUID=secret ${commandLine}`,
    '[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff] usable',
    '[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x000000006fffffff] usable',
    '[    0.000000] BIOS-e820: [mem 0x0000000100000000-0x000000207fffffff] usable',
    '[    0.000000] BIOS-e820: [mem 0x0000002080000000-0x000000407fffffff] usable',
    '[    0.090000] CPU topo: Max. logical packages:   2',
    '[    0.100000] systemd[1]: Hostname set to <secret-host-tdx>.',
    ...tdx.map((line, i) => `[    1.42352${i % 10}] ${line}`),
  ].join('\n');
}

export const GOOD_TDX_LINES: readonly string[] = [
  'virt/tdx: BIOS enabled: private KeyID range [64, 128)',
  'virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.',
  'virt/tdx: Module version: 1.5.25',
  'virt/tdx: 1050636 KB allocated for PAMT',
  'virt/tdx: TDX-Module initialized',
];

export const SRAT = sratTable([
  ...CPUS.map(({ apicId, package: id }) => x2apicStructure(id, apicId)),
  memoryStructure(0, 0, 0x80000000),
  memoryStructure(0, 0x100000000, 0x1f80000000),
  memoryStructure(1, 0x2080000000, 0x2000000000),
]);

export const GOOD_MSRS = {
  IA32_FEATURE_CONTROL: '0x60005',
  IA32_MKTME_KEYID_PARTITIONING: '0x400000003f',
  IA32_MTRRCAP: '0xcd0a',
  IA32_VMX_BASIC: '0x13da050000000004',
  IA32_TME_CAPABILITY: '0x3ff700000005',
  IA32_TME_ACTIVATE: '0x5006700000003',
  IA32_SEAMRR_PHYS_BASE: '0x2070000008',
  IA32_SEAMRR_PHYS_MASK: '0x3ffffe000c00',
};

/** A Sapphire Rapids server with Linux 7.2, ready for TDs. */
export const GOOD_HOST: FakeFiles = {
  '/proc/cpuinfo': cpuinfo(CPUS, { flags: 'tdx_host_platform' }),
  '/proc/cmdline': 'BOOT_IMAGE=/vmlinuz root=UUID=secret password=secret nohibernate kvm_intel.tdx=1\n',
  '/proc/sys/kernel/osrelease': '7.2.0\n',
  '/proc/sys/kernel/hostname': 'secret-host\n',
  '/boot/config-7.2.0':
    'CONFIG_INTEL_TDX_HOST=y\nCONFIG_KVM_INTEL=m\nCONFIG_KVM_INTEL_TDX=y\nCONFIG_HIBERNATION=y\nCONFIG_CMDLINE="secret"\n',
  '/sys/power/disk': '[disabled]\n',
  '/sys/module/kvm_intel/parameters/tdx': 'Y\n',
  '/sys/module/kvm_intel/parameters/ept': 'Y\n',
  '/sys/module/kvm_intel/parameters/enable_apicv': 'Y\n',
  '/sys/module/kvm/parameters/tdp_mmu': 'Y\n',
  '/sys/module/kvm/parameters/mmio_caching': 'Y\n',
  '/dev/kvm': '',
  '/dev/sgx_enclave': '',
  '/dev/sgx_provision': '',
  '/sys/devices/faux/tdx_host/version': '1.5.25\n',
  '/sys/devices/system/cpu/present': '0-7\n',
  '/sys/devices/system/cpu/online': '0-7\n',
  '/sys/devices/system/cpu/offline': '\n',
  '/sys/devices/system/memory/block_size_bytes': '80000000\n',
  '/sys/devices/system/memory/auto_online_blocks': 'offline\n',
  '/sys/devices/system/memory/memory0/state': 'online\n',
  '/sys/fs/cgroup/misc.capacity': 'tdx 63\n',
  '/sys/fs/cgroup/misc.current': 'tdx 2\n',
  '/sys/firmware/acpi/tables/SRAT': SRAT,
  '/sys/class/dmi/id/sys_vendor': 'Example\n',
  '/sys/class/dmi/id/product_serial': 'secret\n',
  '/sys/class/net/eth0/address': '02:00:5e:secret\n',
  '/usr/bin/qemu-system-x86_64': '',
  '/usr/share/ovmf/OVMF.tdx.fd': '',
  '/kernel.log': bootLog(GOOD_TDX_LINES),
  '/msr.json': JSON.stringify(GOOD_MSRS),
  '/probes.json': JSON.stringify({ vmTypes: 0x23, askedBy: 'python3', qemu: 'QEMU emulator version 10.1.0' }),
};

/** The good host, changed. */
export function changed(changes: FakeFiles): FakeFiles {
  return { ...GOOD_HOST, ...changes };
}

/** Writes the files below a new directory and returns its path. */
export function writeRoot(files: FakeFiles, parent = tmpdir()): string {
  const root = mkdtempSync(join(parent, 'tdxlab-root-'));
  for (const [path, contents] of Object.entries(files)) {
    if (contents === undefined) continue;
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), contents);
  }
  return root;
}
